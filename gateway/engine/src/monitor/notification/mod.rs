//! The notifications of one host or service: transitions, suppression, and the records of both.

pub(super) mod current;
pub(super) mod records;
pub(super) mod suppress;
pub(super) mod transition;
