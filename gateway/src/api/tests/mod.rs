//! What the API promises, asked of the whole router.

mod devices;
