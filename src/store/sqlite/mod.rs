//! SQLite: opening the file, and the three lanes on which calls travel.
//!
//! One thread owns the only connection that writes; two more read, one for lists and one for look-ups, so that a long
//! list delays neither a session that opens nor a token that is checked. What the calls do is in the files below.

mod audit;
mod changes;
mod check;
mod credentials;
mod done;
mod feed;
mod filter;
mod lane;
mod list;
mod locks;
mod past;
mod people;
mod processes;
mod retention;
mod sessions;
mod sign_ins;
mod tokens;
mod values;

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use uuid::Uuid;

use self::lane::Lane;
pub use self::processes::KillOrder;
use super::StoreError;

mod embedded {
    refinery::embed_migrations!("src/store/migrations");
}

/// A handle on the book. Clones share the same threads, which end when the last handle is dropped and what was
/// queued is done.
///
/// No method is undone by dropping its future: what was queued still happens (but see [`Store::open_session`]).
#[derive(Clone, Debug)]
pub struct Store {
    writes: Lane,
    look_ups: Lane,
    lists: Lane,
    /// The process that holds what this handle opens.
    process: Option<Uuid>,
}

impl Store {
    /// Opens the book, makes it (mode 0600) if there is none, and brings it to this version's layout. Blocks.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        create_private(path).map_err(|error| StoreError::Open(Arc::new(error)))?;
        let mut writer = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        configure(&writer)?;
        writer.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        writer.pragma_update(None, "synchronous", "NORMAL")?;
        writer.pragma_update(None, "journal_size_limit", WAL_KEPT)?;
        embedded::migrations::runner().run(&mut writer).map_err(|error| StoreError::Open(Arc::new(error)))?;
        let reader = || -> Result<Connection, StoreError> {
            let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            configure(&db)?;
            Ok(db)
        };
        let (look_ups, lists) = (reader()?, reader()?);
        Ok(Store {
            writes: lane::writer("book-write", writer)?,
            look_ups: lane::reader("book-read", look_ups)?,
            lists: lane::reader("book-list", lists)?,
            process: None,
        })
    }

    /// Opens a book to read it alone, also while a gateway writes it. It must have this version's layout, because nothing
    /// is changed. Every write fails. Blocks.
    pub fn open_read_only(path: &Path) -> Result<Store, StoreError> {
        let reader = |name: &str| -> Result<Lane, StoreError> {
            let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            configure(&db)?;
            lane::reader(name, db)
        };
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        configure(&db)?;
        has_this_layout(&db)?;
        Ok(Store {
            writes: reader("book-write")?,
            look_ups: reader("book-read")?,
            lists: lane::reader("book-list", db)?,
            process: None,
        })
    }
}

/// Whether every migration of this version was run.
fn has_this_layout(db: &Connection) -> Result<(), StoreError> {
    let newest = embedded::migrations::runner().get_migrations().iter().map(refinery::Migration::version).max();
    let mut find = db.prepare("SELECT max(version) FROM refinery_schema_history")?;
    let here: Option<i32> = find.query_row([], |row| row.get(0))?;
    match here >= newest {
        true => Ok(()),
        false => {
            let words = "it is of an older version: start the gateway of this version on it first";
            Err(StoreError::Open(Arc::new(std::io::Error::other(words))))
        }
    }
}

/// What every connection needs.
fn configure(db: &Connection) -> Result<(), StoreError> {
    db.busy_timeout(LOCK_WAIT)?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(())
}

/// Makes the file before SQLite does, because SQLite gives its side files the same mode.
fn create_private(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match &error {
            E::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DiskFull => StoreError::Full,
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Busy,
                ErrorCode::ConstraintViolation => StoreError::Conflict(Arc::new(error)),
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Damaged(Arc::new(error)),
                _ => StoreError::Io(Arc::new(error)),
            },
            E::FromSqlConversionFailure(..) | E::IntegralValueOutOfRange(..) | E::InvalidColumnType(..) => {
                StoreError::Damaged(Arc::new(error))
            }
            _ => StoreError::Io(Arc::new(error)),
        }
    }
}

/// How long a lock held by another process is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Compiled statements kept for each connection.
const STATEMENTS_KEPT: usize = 64;
/// The write-ahead log is cut back to this many bytes after a burst.
const WAL_KEPT: i64 = 64 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rusqlite::Connection;
    use uuid::Uuid;

    use super::embedded;
    use crate::store::testing::{self, Book};
    use crate::store::{Owner, Store, StoreError};

    #[tokio::test]
    async fn is_private_and_opens_again() {
        let book = Book::new();
        let new = testing::new_session();
        book.open_session(new.clone()).await.unwrap();
        for name in ["book.db", "book.db-wal", "book.db-shm"] {
            let mode = std::fs::metadata(book.dir().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let again = Store::open(&book.dir().join("book.db")).unwrap();
        assert!(again.session(testing::socket_id(&new), new.session_id).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn is_read_beside_its_writer_and_nothing_else() {
        let book = Book::new();
        let path = book.dir().join("book.db");
        let reader = Store::open_read_only(&path).unwrap();
        let new = testing::new_session();
        book.open_session(new.clone()).await.unwrap();
        assert_eq!(
            reader.past_sessions(new.start_time, None, 10).await.unwrap().len(),
            1,
            "written after it was opened"
        );
        let visit = reader.last_visit(Owner::of(&new.identity)).await.unwrap().unwrap();
        assert_eq!(visit.client_ip, new.client_ip);
        reader.open_session(testing::new_session()).await.unwrap_err();
        assert_eq!(book.past_sessions(new.start_time, None, 10).await.unwrap().len(), 1);
        // Not made, and not brought up to date.
        let none = book.dir().join("none.db");
        assert!(Store::open_read_only(&none).is_err() && !none.exists());
        let mut old = Connection::open(&none).unwrap();
        embedded::migrations::runner().set_target(refinery::Target::Version(6)).run(&mut old).unwrap();
        let error = Store::open_read_only(&none).unwrap_err();
        let why = std::error::Error::source(&error).map(ToString::to_string);
        assert!(why.is_some_and(|why| why.contains("older version")), "{error:?}");
    }

    #[test]
    fn narrows_a_file_that_was_too_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("book.db");
        std::fs::write(&path, b"").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        Store::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    /// As in an upgrade: the old process goes on writing as it knows it.
    #[tokio::test]
    async fn a_book_of_the_version_before_is_brought_up_to_date_while_that_version_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("book.db");
        let mut old = Connection::open(&path).unwrap();
        old.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
        let before = embedded::migrations::runner().set_target(refinery::Target::Version(6));
        before.run(&mut old).unwrap();
        let write = |session: Uuid| {
            let columns = "session_id, socket_id, socket_name, session_type, start_time, last_seen, issuer, sub,
                user_email, groups, signed_in, actor, server_name, server_port, upstream, client_ip, client_port,
                audit_log, result, durability";
            let values =
                "?1, ?1, 'shell', 'ssh', 1, 1, 'https://idp', 'u-1', 'a@example.com', '[]', 1, 'person', 's', 1,
                'u', '192.0.2.1', 1, 0, 'success', 'process'";
            old.execute(&format!("INSERT INTO sessions ({columns}) VALUES ({values})"), [session.as_bytes()]).unwrap();
        };
        write(Uuid::now_v7());
        let new = Store::open(&path).unwrap();
        write(Uuid::now_v7());
        let since = jiff::Timestamp::UNIX_EPOCH;
        let past = new.past_sessions(since, None, 10).await.unwrap();
        assert_eq!(past.iter().map(|past| past.proved).collect::<Vec<_>>(), [false, false]);
        assert_eq!((new.locks(since).await.unwrap(), new.newest_change().await.unwrap()), (vec![], 0));
        new.person_seen(&testing::identity(jiff::Timestamp::now())).await.unwrap();
    }

    #[test]
    fn refuses_what_is_no_book() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("book.db");
        std::fs::write(&path, b"not a database, whatever its name says; long enough to have a header").unwrap();
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Damaged(_)), "{error:?}");
        let error = Store::open(&dir.path().join("no/such/place")).unwrap_err();
        assert!(matches!(error, StoreError::Open(_)), "{error:?}");
        assert!(!error.to_string().contains("such"), "no path in words for users: {error}");
    }
}
