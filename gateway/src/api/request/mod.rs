//! How a request is received: who calls, what they may do, how the call is read, and how its change
//! is committed.
//!
//! All resources use it. It knows none of them, except for the limits that [`rate_limits`] joins.
//!
//! | question | file |
//! |---|---|
//! | Who calls? | `client.rs` (the connection), `auth.rs` (the credential), `person.rs` (a person of a customer), `token_cache.rs` |
//! | May they? | `permission.rs`, `rate_limits.rs`, `throttle.rs`, `in_progress.rs`; `checks.rs` asks before the handler |
//! | What do they send? | `extract.rs` within `body_room.rs`, `strict_json.rs`, `parse.rs`, `merge_patch.rs`, `query.rs`, `ids.rs`, `managed_by.rs` |
//! | Would a planned write be accepted? | `validation.rs` |
//! | Was it sent before? | `idempotency.rs`, `references.rs` |
//! | How is it committed? | `transaction.rs` |

pub mod auth;
pub mod body_room;
pub mod checks;
pub mod client;
pub mod extract;
pub mod idempotency;
pub mod ids;
pub mod in_progress;
pub mod managed_by;
pub mod merge_patch;
pub mod parse;
pub mod permission;
pub mod person;
pub mod query;
pub mod rate_limits;
mod references;
mod strict_json;
pub mod throttle;
pub mod token_cache;
pub mod transaction;
pub mod validation;
