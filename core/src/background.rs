//! Work that outlives the answer to a call: an answer that is written on although its reader has gone, and what is
//! stored after a stream's last byte.
//!
//! Lambda freezes an environment as soon as the runtime asks for the next event, so [`crate::service::run`] waits for
//! this work before it does.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// The work that is under way. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Background(TaskTracker);

impl Background {
    /// No work.
    pub fn new() -> Self {
        Self::default()
    }

    /// Does `work` in a task of its own, logged under the span that is current now. Dropping the handle changes nothing;
    /// aborting through it ends the work.
    pub fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.spawn(work.in_current_span())
    }

    /// Waits until no work is left, at most `limit`; false if some is.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.0.close();
        let drained = tokio::time::timeout(limit, self.0.wait()).await.is_ok();
        self.0.reopen();
        drained
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_what_was_begun_and_not_for_ever() {
        let background = Background::new();
        assert!(background.drain(Duration::ZERO).await, "nothing to wait for");
        let (finish, finished) = oneshot::channel::<()>();
        let work = background.spawn(async { finished.await.is_ok() });
        assert!(!background.drain(Duration::from_secs(130)).await);
        finish.send(()).unwrap();
        assert!(background.drain(Duration::from_secs(130)).await);
        assert!(work.await.unwrap());
        // It can be used again afterwards.
        background.spawn(async {});
        assert!(background.drain(Duration::from_secs(1)).await);
    }

    #[tokio::test]
    async fn what_panics_is_not_waited_for() {
        let background = Background::new();
        let work = background.spawn(async { panic!("on purpose") });
        assert!(background.drain(Duration::from_secs(60)).await);
        assert!(work.await.is_err());
    }
}
