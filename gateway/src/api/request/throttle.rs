//! Token buckets against guessing: per source and per account, refilled over time, limited in
//! number.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::Duration;

use fleetgate_engine::time::Mono;

/// Keys remembered at once. A bucket takes 50 bytes. More concurrent addresses than this are a
/// flood, and then the oldest are forgotten first.
const MAX_KEYS: usize = 10_000;

/// The number of attempts at once, and the time until one more.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub burst: u32,
    pub refill: Duration,
}

pub struct Throttle<K> {
    rate: Rate,
    buckets: Mutex<HashMap<K, Bucket>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    /// The time when the bucket will be full again.
    full_at: Mono,
}

impl<K: Eq + Hash + Clone> Throttle<K> {
    pub fn new(rate: Rate) -> Self {
        Throttle { rate, buckets: Mutex::default() }
    }

    /// Takes one attempt from the bucket.
    ///
    /// # Errors
    /// Returns the time to wait when the bucket is empty.
    pub fn take(&self, key: &K, now: Mono) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().expect("no holder panics");
        let full_at = buckets.get(key).map_or(now, |b| b.full_at.max(now));
        let after = full_at + self.rate.refill;
        let wait = after.since(now).saturating_sub(self.rate.refill * self.rate.burst);
        if !wait.is_zero() {
            return Err(wait);
        }
        if buckets.len() >= MAX_KEYS && !buckets.contains_key(key) {
            make_room(&mut buckets, now);
        }
        buckets.insert(key.clone(), Bucket { full_at: after });
        Ok(())
    }

    /// Refunds a successful attempt.
    pub fn refund(&self, key: &K) {
        let mut buckets = self.buckets.lock().expect("no holder panics");
        if let Some(bucket) = buckets.get_mut(key) {
            bucket.full_at = bucket.full_at - self.rate.refill;
        }
    }
}

fn make_room<K: Eq + Hash + Clone>(buckets: &mut HashMap<K, Bucket>, now: Mono) {
    buckets.retain(|_, b| b.full_at > now);
    if buckets.len() >= MAX_KEYS {
        let oldest = buckets.iter().min_by_key(|(_, b)| b.full_at).map(|(k, _)| k.clone());
        oldest.map(|key| buckets.remove(&key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, refill: Duration::from_secs(10) };

    fn at(seconds: u64) -> Mono {
        Mono::from_secs(1_000 + seconds)
    }

    #[test]
    fn a_burst_is_allowed_and_then_one_per_refill() {
        let throttle = Throttle::new(RATE);
        for _ in 0..3 {
            assert_eq!(throttle.take(&"a", at(0)), Ok(()));
        }
        assert_eq!(throttle.take(&"a", at(0)), Err(Duration::from_secs(10)));
        assert_eq!(throttle.take(&"a", at(9)), Err(Duration::from_secs(1)));
        assert_eq!(throttle.take(&"a", at(10)), Ok(()));
        assert!(throttle.take(&"a", at(10)).is_err());
        assert_eq!(throttle.take(&"b", at(10)), Ok(()));
    }

    #[test]
    fn a_good_attempt_costs_nothing() {
        let throttle = Throttle::new(RATE);
        for _ in 0..10 {
            assert_eq!(throttle.take(&"a", at(0)), Ok(()));
            throttle.refund(&"a");
        }
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let throttle = Throttle::new(RATE);
        for key in 0..MAX_KEYS + 100 {
            throttle.take(&key, at(0)).unwrap();
        }
        assert!(throttle.buckets.lock().unwrap().len() <= MAX_KEYS);
    }
}
