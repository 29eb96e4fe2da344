//! Keyset pagination: `?limit=&after=` and a response of `{items, next}`. A page never shifts when
//! rows before it come or go.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use utoipa::IntoParams;

use super::problem::Problem;
use crate::api::types::Page;
use crate::store::lists::Entry;

/// The default page size, a screen or two.
pub const DEFAULT_LIMIT: i64 = 100;
/// The largest page. 10,000 hosts are five pages, and one page is a megabyte.
pub const MAX_LIMIT: i64 = 2_000;
/// A cursor is a name or a number. A longer one cannot be valid.
const MAX_CURSOR: usize = 1_024;

/// `#[into_params]` of every list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// Rows of a page; 100 when absent.
    #[param(minimum = 1, maximum = 2000)]
    pub limit: Option<i64>,
    /// `next` of the page before.
    pub after: Option<String>,
}

impl Paging {
    /// # Errors
    /// Fails outside of 1 to [`MAX_LIMIT`].
    pub fn limit(&self) -> Result<i64, Problem> {
        match self.limit.unwrap_or(DEFAULT_LIMIT) {
            limit @ 1..=MAX_LIMIT => Ok(limit),
            _ => Err(Problem::bad_request("bad_query", format!("limit: 1 to {MAX_LIMIT} is expected"))),
        }
    }

    /// Returns the key of the last row of the previous page.
    ///
    /// # Errors
    /// Fails when `after` is no cursor of the gateway.
    pub fn after(&self) -> Result<Option<String>, Problem> {
        self.after.as_deref().map(decode).transpose()
    }

    /// Returns the same for numeric keys.
    ///
    /// # Errors
    /// Fails when `after` is no cursor of the gateway.
    pub fn after_number(&self) -> Result<Option<i64>, Problem> {
        let key = self.after()?;
        key.map(|k| k.parse().map_err(|_| bad_cursor())).transpose()
    }
}

fn decode(cursor: &str) -> Result<String, Problem> {
    if cursor.is_empty() || cursor.len() > MAX_CURSOR {
        return Err(bad_cursor());
    }
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad_cursor())?;
    String::from_utf8(bytes).map_err(|_| bad_cursor())
}

/// Returns the opaque form of a key.
pub fn cursor(key: &str) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

pub fn bad_cursor() -> Problem {
    Problem::bad_request("bad_query", "after: take `next` of the page before, as it is")
}

impl<T> Page<T> {
    /// Builds a page from `rows`, which were read with `limit + 1` to detect further rows.
    pub fn of<R>(mut rows: Vec<R>, limit: i64, key: impl Fn(&R) -> String, to_api: impl Fn(R) -> T) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| cursor(&key(row)));
        Page { items: rows.into_iter().map(to_api).collect(), next }
    }

    /// Builds a page from `entries`, which were read with `limit + 1`. Unreadable ones are left out: a page
    /// may then be shorter than `limit` although another one follows.
    pub fn of_entries<R>(
        entries: Vec<Entry<R>>,
        limit: i64,
        key: impl Fn(&R) -> String,
        to_api: impl Fn(R) -> T,
    ) -> Self {
        let place = |entry: &Entry<R>| match entry {
            Entry::Row(row) => key(row),
            Entry::Unreadable(place) => place.clone(),
        };
        let page = Page::of(entries, limit, place, |entry| entry.row().map(&to_api));
        Page { items: page.items.into_iter().flatten().collect(), next: page.next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_the_next_one_only_where_more_follows() {
        let page = Page::of(vec![1, 2, 3], 2, i32::to_string, |n| n);
        assert_eq!(page.items, [1, 2]);
        let paging = Paging { limit: None, after: page.next };
        assert_eq!(paging.after_number().unwrap(), Some(2));
        assert_eq!(Page::of(vec![1, 2], 2, i32::to_string, |n| n).next, None);
    }

    #[test]
    fn a_page_of_unreadable_rows_still_leads_to_the_next_one() {
        let entries = || vec![Entry::Row(9), Entry::Unreadable("8".into()), Entry::Row(7)];
        let page = |limit| Page::of_entries(entries(), limit, i32::to_string, |n| n);
        assert_eq!((page(3).items, page(3).next), (vec![9, 7], None));
        assert_eq!(page(2).items, [9]);
        let paging = Paging { limit: None, after: page(2).next };
        assert_eq!(paging.after_number().unwrap(), Some(8));
    }

    #[test]
    fn a_foreign_cursor_or_limit_is_refused() {
        for after in ["", "%%", "AAAA", &"a".repeat(2_000)] {
            let paging = Paging { limit: None, after: Some(after.to_owned()) };
            assert!(paging.after_number().is_err(), "{after}");
        }
        for after in ["", "%%", "_w"] {
            let paging = Paging { limit: None, after: Some(after.to_owned()) };
            assert!(paging.after().is_err(), "{after}");
        }
        for limit in [0, -1, MAX_LIMIT + 1] {
            assert!(Paging { limit: Some(limit), after: None }.limit().is_err());
        }
    }
}
