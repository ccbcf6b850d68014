//! Recordings: what happened on a channel, safe before it is forwarded, in one chained file per channel.
//!
//! An observation goes through [`Tap::record`] into the recording's spool (memory that outlives the process), then it may
//! be forwarded. A blocking job moves the spool into the container behind everybody's back. [`Reader`] reads both as one,
//! live or later; [`Recordings::recover`] closes what a crash left open; [`export`] makes what players read; [`verify`]
//! checks a container without a gateway; [`Recordings::remove`] ends its life.
//!
//! Both spool and container are encrypted, always, with a key of the recording's own (`crypt`), which the gateway's key
//! opens (`keys`).
//!
//! Nothing here knows a protocol, the session or the book.

pub mod codec;
pub mod container;
#[cfg(test)]
mod crash_tests;
pub mod crypt;
mod drain;
mod error;
pub mod export;
mod file;
mod follow;
mod fresh;
#[cfg(test)]
mod keep_tests;
pub mod keys;
pub mod observation;
mod reader;
mod recover;
mod remove;
mod spool;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod verify;
mod vitals;
mod writer;

use std::collections::HashMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;
use uuid::Uuid;

use self::container::{Chain, Header};
use self::crypt::DataKey;
pub use self::error::{ReadError, RecordingLost};
use self::file::{ContainerFile, Scratch};
pub use self::follow::{Follower, Look};
use self::keys::Keys;
pub use self::reader::{Reader, Verdict};
pub use self::recover::{Recovered, Recovery};
pub use self::remove::Orphan;
use self::spool::Spool;
use self::vitals::Recorded;
pub use self::vitals::{Trouble, Vitals};
use self::writer::Writer;
pub use self::writer::{Budget, Ending, Finished, Tap};
use crate::socket::OnFailure;

/// Drain jobs at a time, over all recordings: a bound on the blocking threads that slow disks can hold.
const JOBS: usize = 128;
/// Compressors kept for reuse; each is about a megabyte.
const SCRATCHES: usize = 4;
/// The smallest `/dev/shm` worth using: a busy recording takes up to 2 MiB of it. Containers often have 64 MiB.
const SMALLEST_SHM: u64 = 256 << 20;

/// All recordings of a gateway. Cheap to clone.
#[derive(Clone)]
pub struct Recordings {
    shared: Arc<Shared>,
}

/// Where and how to record.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where containers are kept: `<dir>/<yyyy-mm-dd>/<session>/<recording>.gsr`.
    pub dir: PathBuf,
    /// Where spools are, see [`default_spool`]. The same at every start, else recovery finds nothing.
    pub spool: PathBuf,
    /// What an observation survives once it is recorded.
    pub durability: Durability,
    /// Bytes of the disk that recordings leave free for rows and events.
    pub keep_free: u64,
    /// How long an observation may stay in the spool only.
    pub flush_after: Duration,
    /// The gateway's id, for the containers' headers.
    pub gateway: Uuid,
    /// What recordings are encrypted with.
    pub keys: Keys,
}

/// What an observation survives once it is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The gateway's sudden death.
    #[default]
    Process,
    /// The machine's, too. Every record waits for the disk.
    Disk,
}

impl Durability {
    /// `process` or `disk`, as in the configuration and in rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Disk => "disk",
        }
    }
}

/// What a recording starts with.
#[derive(Clone, Debug)]
pub struct NewRecording {
    /// The session it belongs to.
    pub session: Uuid,
    /// Its own id.
    pub recording: Uuid,
    /// `shell`, `exec`, `subsystem`, …; at most 64 characters.
    pub kind: String,
    /// When it begins: now.
    pub started: Timestamp,
    /// What happens when it cannot be written.
    pub on_failure: OnFailure,
    /// What the session's recordings may take together.
    pub budget: Arc<Budget>,
}

/// A container's bytes, as far as they are whole.
#[derive(Debug)]
pub struct Raw {
    /// The file, at its beginning.
    pub file: File,
    /// How many of its bytes to take.
    pub len: u64,
}

/// What recordings share.
struct Shared {
    settings: Settings,
    jobs: Arc<Semaphore>,
    scratches: Mutex<Vec<Scratch>>,
    held: fresh::Held,
    live: Mutex<HashMap<Uuid, Weak<Writer>>>,
    recorded: Recorded,
}

impl Recordings {
    /// Creates the directories. Blocking; at the start only. The spool directory must be the gateway's own: on a shared
    /// `/dev/shm` somebody else could have made it.
    pub fn open(settings: Settings) -> io::Result<Self> {
        for dir in [&settings.dir, &settings.spool] {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let spool = std::fs::symlink_metadata(&settings.spool)?;
        if !spool.is_dir() || spool.uid() != rustix::process::geteuid().as_raw() || spool.mode() & 0o077 != 0 {
            let words = format!("{} must be a directory of this user with mode 0700", settings.spool.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
        }
        let shared = Shared {
            settings,
            jobs: Arc::new(Semaphore::new(JOBS)),
            scratches: Mutex::new(Vec::new()),
            held: fresh::Held::default(),
            live: Mutex::new(HashMap::new()),
            recorded: Recorded::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Starts a recording. Waits for the disk, on a blocking thread: a session on a disk that is full or does not answer
    /// does not begin.
    pub async fn create(&self, new: NewRecording) -> Result<Tap, RecordingLost> {
        let shared = Arc::clone(&self.shared);
        let runtime = tokio::runtime::Handle::current();
        let made = self.shared.blocking(move || create(shared, new, runtime));
        tokio::time::timeout(Duration::from_secs(60), made).await.unwrap_or(Err(RecordingLost::Stalled))
    }

    /// Opens a recording for reading; the reader blocks, so use it on a blocking thread.
    pub async fn open_reader(&self, session: Uuid, recording: Uuid, started: Timestamp) -> Result<Reader, ReadError> {
        let settings = &self.shared.settings;
        let container = container_path(&settings.dir, started, session, recording);
        let spool = spool_path(&settings.spool, recording);
        let keys = settings.keys.clone();
        self.shared.blocking(move || Reader::open(&container, &spool, &keys)).await
    }

    /// The container itself, encrypted as it is kept. What a live recording has in its spool is moved there first.
    pub async fn raw(&self, session: Uuid, recording: Uuid, started: Timestamp) -> Result<Raw, ReadError> {
        let writer = self.shared.live().get(&recording).and_then(Weak::upgrade);
        if let Some(writer) = &writer {
            // Where that fails, what is in the container is still worth giving out.
            let _ = writer.flush().await;
        }
        let path = container_path(&self.shared.settings.dir, started, session, recording);
        let open = move || {
            let file = File::open(path)?;
            let len = match writer {
                Some(writer) => writer.lock().size,
                None => file.metadata()?.len(),
            };
            Ok(Raw { file, len })
        };
        self.shared.blocking(open).await
    }
}

impl Shared {
    async fn blocking<T: Send + 'static, E: From<io::Error> + Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error).into()))
    }

    fn live(&self) -> MutexGuard<'_, HashMap<Uuid, Weak<Writer>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, recording: Uuid) {
        self.live().remove(&recording);
    }

    fn scratch(&self) -> io::Result<Scratch> {
        let kept = self.scratches.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.map_or_else(Scratch::new, Ok)
    }

    fn give_back(&self, scratch: Scratch) {
        let mut kept = self.scratches.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < SCRATCHES {
            kept.push(scratch);
        }
    }
}

/// Where spools belong: in memory that outlives the process, if there is enough, else on the disk beside the recordings.
pub fn default_spool(data_dir: &Path) -> PathBuf {
    let shm = Path::new("/dev/shm");
    let usable = File::open(shm).is_ok_and(|dir| {
        let large = rustix::fs::fstatvfs(&dir).is_ok_and(|fs| fs.f_blocks.saturating_mul(fs.f_frsize) >= SMALLEST_SHM);
        spool::on_tmpfs(&dir) && large && rustix::fs::access(shm, rustix::fs::Access::WRITE_OK).is_ok()
    });
    if !usable {
        return data_dir.join("spool");
    }
    let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let hash = blake3::hash(data_dir.as_os_str().as_encoded_bytes()).to_hex();
    let short: String = hash.chars().take(12).collect();
    shm.join(format!("gatescribe-{}-{short}", rustix::process::geteuid().as_raw()))
}

fn create(shared: Arc<Shared>, new: NewRecording, runtime: tokio::runtime::Handle) -> Result<Tap, RecordingLost> {
    new.budget.spend(0)?;
    let settings = &shared.settings;
    let data = DataKey::random()?;
    let mut header = Header::new(settings.gateway, new.session, new.recording, &new.kind, new.started);
    header.aead = crypt::AEAD.to_owned();
    header.keys = settings.keys.wrap(&data, &header)?;
    let header = container::encode_header(&header)?;
    let sealer = data.frames(Chain::start(&header).hash())?.sealer()?;
    let path = container_path(&settings.dir, new.started, new.session, new.recording);
    // The spool first: as long as it is there, a crash is noticed.
    let spool = Spool::create(&spool_path(&settings.spool, new.recording), &header, &data)?;
    let container = ContainerFile::create(&path, &header, sealer, settings.durability == Durability::Disk)
        .map_err(RecordingLost::from)
        .and_then(|container| match drain::may_append(container.free()?, settings.keep_free, 0, 0, false) {
            true => Ok(container),
            false => {
                std::fs::remove_file(&path)?;
                Err(RecordingLost::Full)
            }
        });
    match container {
        Ok(container) => {
            let id = new.recording;
            let writer = Arc::new(Writer::new(Arc::clone(&shared), new, spool, container, runtime));
            shared.live().insert(id, Arc::downgrade(&writer));
            Ok(Tap::new(writer))
        }
        Err(error) => {
            let _ = spool.remove();
            Err(error)
        }
    }
}

fn container_path(dir: &Path, started: Timestamp, session: Uuid, recording: Uuid) -> PathBuf {
    let day = started.strftime("%Y-%m-%d").to_string();
    dir.join(day).join(session.to_string()).join(format!("{recording}.gsr"))
}

fn spool_path(spool: &Path, recording: Uuid) -> PathBuf {
    spool.join(recording.to_string()).with_extension(spool::EXTENSION)
}
