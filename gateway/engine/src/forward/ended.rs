//! The grants that ended last. No decision looks at them; they only answer why something does not
//! pass any more, and keep a grant from opening again after the clock was set back.
//!
//! A grant that is forgotten here and sent again with the same end is over by the wall clock. It
//! opens again only if the clock was set back before its end.

use std::cmp::Reverse;
use std::collections::VecDeque;

use super::grant::Grant;
use super::window::Window;
use crate::id::GrantId;
use crate::messages::GrantSpec;

/// Passing over all of them takes some microseconds, once for each change of a grant.
pub const MOST: usize = 1_000;

/// The oldest end is first.
#[derive(Default)]
pub struct Ended {
    grants: VecDeque<Grant>,
}

impl Ended {
    pub fn add(&mut self, grant: Grant) {
        if self.grants.len() >= MOST {
            self.grants.pop_front();
        }
        self.grants.push_back(grant);
    }

    /// Returns whether a grant that is sent again has ended before. Its new text is kept, with the begins of its blocks,
    /// which follow from those that were known.
    pub fn renew(&mut self, spec: &GrantSpec, begins: impl FnOnce(&[Window]) -> Vec<Window>) -> bool {
        let same = |grant: &&mut Grant| grant.spec.id == spec.id && grant.spec.until == spec.until;
        let Some(grant) = self.grants.iter_mut().find(same) else { return false };
        grant.window.from = spec.from;
        grant.begins = begins(&grant.begins);
        grant.spec = spec.clone();
        true
    }

    pub fn remove(&mut self, id: GrantId) {
        self.grants.retain(|grant| grant.spec.id != id);
    }

    pub fn get(&self, id: GrantId) -> Option<&Grant> {
        self.grants.iter().find(|grant| grant.spec.id == id)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.grants.len()
    }

    pub fn take(&mut self) -> VecDeque<Grant> {
        std::mem::take(&mut self.grants)
    }

    /// Returns the grant with the latest end of those that `covers` holds for.
    pub fn latest(&self, covers: impl Fn(&GrantSpec) -> bool) -> Option<GrantId> {
        let covering = self.grants.iter().map(|grant| &grant.spec).filter(|spec| covers(spec));
        covering.max_by_key(|spec| (spec.until, Reverse(spec.id))).map(|spec| spec.id)
    }
}
