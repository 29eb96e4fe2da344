//! How a call is answered: errors, pages, ETags, and the layers around every response.
//!
//! It knows no resource.

pub mod around;
pub mod etag;
pub mod layers;
pub mod page;
pub mod problem;
