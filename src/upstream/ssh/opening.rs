//! A channel that is being opened. Whoever waits for it may give up at any moment, and the other side answers all the same:
//! what opens later is closed again, or it would stay open for as long as the connection.

use russh::{Channel, ChannelId, ChannelMsg};
use tokio::sync::oneshot;
use tracing::Instrument;

/// Waits until a channel is opened or refused; `open` runs to its end even if nobody waits any more. Cancel safe. The
/// caller bounds how many it begins.
pub async fn opening<M>(
    open: impl Future<Output = Result<Channel<M>, russh::Error>> + Send + 'static,
) -> Result<Channel<M>, russh::Error>
where
    M: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    let (told, hears) = oneshot::channel();
    let opens = async move {
        if let Err(Ok(late)) = told.send(open.await) {
            let _ = late.close().await;
        }
    };
    tokio::spawn(opens.in_current_span());
    let mut waits = Waits(hears);
    (&mut waits.0).await.unwrap_or(Err(russh::Error::Disconnect))
}

/// Whoever waits.
struct Waits<M>(oneshot::Receiver<Result<Channel<M>, russh::Error>>)
where
    M: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static;

impl<M> Drop for Waits<M>
where
    M: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    /// It may have been opened in the same moment.
    fn drop(&mut self) {
        self.0.close();
        if let (Ok(Ok(late)), Ok(runtime)) = (self.0.try_recv(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { late.close().await });
        }
    }
}
