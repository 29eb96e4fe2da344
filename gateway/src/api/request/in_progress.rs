//! Counts the requests that each caller has in progress.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

/// It has at most one entry for each request in progress.
pub struct InProgress<K> {
    most: usize,
    counts: Arc<Mutex<HashMap<K, usize>>>,
}

/// A counted request, until it is dropped.
pub struct CallPermit<K: Eq + Hash> {
    key: K,
    counts: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Eq + Hash + Clone> InProgress<K> {
    /// `most`: requests of one caller at a time.
    pub fn new(most: usize) -> Self {
        InProgress { most, counts: Arc::default() }
    }

    /// Returns `None` when this caller has as many as it may.
    pub fn begin(&self, key: &K) -> Option<CallPermit<K>> {
        let mut counts = locked(&self.counts);
        let count = counts.get(key).copied().unwrap_or_default();
        if count >= self.most {
            return None;
        }
        counts.insert(key.clone(), count + 1);
        Some(CallPermit { key: key.clone(), counts: self.counts.clone() })
    }
}

impl<K: Eq + Hash> Drop for CallPermit<K> {
    fn drop(&mut self) {
        let mut counts = locked(&self.counts);
        match counts.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.key)),
        }
    }
}

fn locked<K>(counts: &Mutex<HashMap<K, usize>>) -> MutexGuard<'_, HashMap<K, usize>> {
    counts.lock().expect("no holder panics")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_its_own_places_and_nothing_is_remembered_of_who_left() {
        let reads = InProgress::new(2);
        let first = reads.begin(&"ada").expect("a place");
        let _second = reads.begin(&"ada").expect("a place");
        assert!(reads.begin(&"ada").is_none());
        drop(reads.begin(&"bob").expect("another caller"));
        drop(first);
        assert!(reads.begin(&"ada").is_some());
        assert_eq!(locked(&reads.counts).keys().copied().collect::<Vec<_>>(), ["ada"]);
    }
}
