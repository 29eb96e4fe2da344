//! Tests whether the main database accepts a write of some size now.
//!
//! Some changes take effect in memory and are committed later. This test refuses them before they
//! take effect if the commit would fail. Concurrent callers share one commit.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sqlx::SqlitePool;
use tokio::sync::OnceCell;

use super::{Trouble, trouble};

/// Space in the file for the changes of one result, in bytes: its row, an event, messages, indices.
const FILLER: i64 = 64 * 1024;
/// The reserve in the file system until it is set: the log of these writes.
const RESERVE: u64 = 1024 * 1024;

/// The reason why a write would fail. `None` if the statement is to blame.
pub type Refusal = Option<Trouble>;

/// Concurrent callers and their shared result.
type SharedCheck = Arc<OnceCell<Result<(), Refusal>>>;

pub(super) struct WriteCheck {
    dir: PathBuf,
    /// The free bytes in the file system below which nothing more is accepted.
    reserve: AtomicU64,
    /// The shared check that has not begun. It serves every caller that asks now.
    next: Mutex<SharedCheck>,
    /// Locked while a shared check runs.
    turn: tokio::sync::Mutex<()>,
}

impl WriteCheck {
    pub fn new(dir: &Path) -> Self {
        WriteCheck {
            dir: dir.to_owned(),
            reserve: AtomicU64::new(RESERVE),
            next: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Tests with one write.
    ///
    /// # Errors
    /// Returns the reason why the database accepts no write.
    pub async fn run(&self, write: &SqlitePool) -> Result<(), Refusal> {
        let shared = self.next().clone();
        *shared.get_or_init(|| self.check(write)).await
    }

    async fn check(&self, write: &SqlitePool) -> Result<(), Refusal> {
        let _turn = self.turn.lock().await;
        // The write that begins here does not serve later callers.
        *self.next() = SharedCheck::default();
        if !self.has_space() {
            return Err(Some(Trouble::Full));
        }
        attempt(write).await.map_err(|error| {
            tracing::warn!("the database takes nothing, results are refused: {error}");
            trouble(&error)
        })
    }

    /// Whether the file system has at least the reserve.
    pub fn has_space(&self) -> bool {
        self.free_bytes().is_none_or(|free| free >= self.reserve.load(Ordering::Relaxed))
    }

    pub fn set_reserve(&self, bytes: u64) {
        self.reserve.store(bytes, Ordering::Relaxed);
    }

    /// Returns the free bytes in the file system. `None` if it does not report them.
    pub fn free_bytes(&self) -> Option<u64> {
        free(&self.dir)
    }

    fn next(&self) -> std::sync::MutexGuard<'_, SharedCheck> {
        self.next.lock().expect("no holder panics")
    }
}

/// Writes and deletes the filler. Its pages stay in the file, free for later rows.
async fn attempt(write: &SqlitePool) -> sqlx::Result<()> {
    let mut tx = write.begin_with("begin immediate").await?;
    sqlx::query("insert into room (id, filler) values (1, zeroblob($1))")
        .bind(FILLER)
        .execute(&mut *tx)
        .await?;
    sqlx::query("delete from room").execute(&mut *tx).await?;
    tx.commit().await
}

/// Returns the free bytes in the file system of `dir`. `None` if it does not report them.
#[allow(unsafe_code, reason = "statvfs, which std does not have")]
#[allow(clippy::useless_conversion, reason = "they have 32 bits on other machines")]
fn free(dir: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(dir.as_os_str().as_bytes()).ok()?;
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero, and the struct is read only after the call has filled it.
    let found = unsafe {
        if libc::statvfs(path.as_ptr(), found.as_mut_ptr()) != 0 {
            return None;
        }
        found.assume_init()
    };
    Some(u64::from(found.f_bavail).saturating_mul(u64::from(found.f_frsize)))
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[tokio::test]
    async fn a_full_database_is_detected_before_a_change() {
        let (store, _dir) = fixture::store().await;
        assert_eq!(store.check_writable().await, Ok(()));
        sqlx::query("vacuum").execute(&store.write).await.unwrap();
        sqlx::query("pragma max_page_count = 1").execute(&store.write).await.unwrap();
        assert_eq!(store.check_writable().await, Err(Some(Trouble::Full)));
        sqlx::query("pragma max_page_count = 1000000").execute(&store.write).await.unwrap();
        assert_eq!(store.check_writable().await, Ok(()));
        let left: i64 = sqlx::query_scalar("select count(*) from room").fetch_one(&store.read).await.unwrap();
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn concurrent_callers_share_a_commit() {
        let (store, _dir) = fixture::store().await;
        let held = store.begin().await.unwrap();
        let (first, second) = (store.check_writable(), store.check_writable());
        tokio::pin!(first, second);
        assert!(
            futures_util::poll!(&mut first).is_pending() && futures_util::poll!(&mut second).is_pending()
        );
        drop(held);
        assert_eq!((first.await, second.await), (Ok(()), Ok(())));
        store.write.close().await;
        assert!(store.check_writable().await.is_err(), "an earlier check does not count");
    }

    #[tokio::test]
    async fn below_the_reserve_nothing_is_accepted() {
        let (store, _dir) = fixture::store().await;
        assert!(store.has_space() && store.free_bytes().is_some());
        store.set_reserve(u64::MAX);
        assert_eq!((store.has_space(), store.check_writable().await), (false, Err(Some(Trouble::Full))));
        store.set_reserve(0);
        assert_eq!((store.has_space(), store.check_writable().await), (true, Ok(())));
    }

    #[test]
    fn the_free_space_of_the_file_system_is_read() {
        assert!(free(Path::new("/")).is_some() && free(Path::new("/nowhere/at/all")).is_none());
    }
}
