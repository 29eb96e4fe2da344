//! Tests of the API's promises against the whole router.

mod access;
mod backups;
mod behind;
mod care;
mod counts;
mod devices;
mod document;
mod effects;
mod enrolments;
mod etags;
mod fields;
mod hostile;
mod hosts;
mod incidents;
mod inside;
mod limits;
mod log_size;
mod notifications;
mod outbound;
mod profiles;
mod removals;
mod repeated;
mod results;
mod script;
mod stream;
