//! The processes of one function for one tenant, and the events that wait for them.
//!
//! Only counting: processes take events themselves, and whoever changes the counts is told how many processes to start.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use super::{InvokeError, Outcome, ResponseStream, lock};
use crate::template::Function;

/// What became of an event.
pub(super) enum Reply {
    Outcome(Outcome),
    Stream(ResponseStream),
}

/// An event, and who waits for its answer.
pub(super) struct Job {
    pub(super) request_id: Uuid,
    pub(super) tenant: Option<String>,
    pub(super) payload: Bytes,
    pub(super) reply: oneshot::Sender<Result<Reply, InvokeError>>,
}

/// See the module.
pub(super) struct Pool {
    pub(super) function: Arc<Function>,
    pub(super) tenant: Option<String>,
    /// The most processes at one time.
    processes: usize,
    /// The most waiting events at one time.
    waiting: usize,
    state: Mutex<State>,
    /// Wakes one idle process per event.
    pub(super) arrived: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    /// Processes that run or are about to.
    live: usize,
    /// Those of them which will take an event next: starting ones, idle ones, and those that have answered and are about
    /// to ask for the next.
    vacant: usize,
    closed: bool,
}

impl State {
    /// How many more processes the waiting events need; they are counted at once.
    fn missing(&mut self, most: usize) -> usize {
        // Nobody waits for these any more.
        self.waiting.retain(|job| !job.reply.is_closed());
        if self.closed {
            return 0;
        }
        let missing = self
            .waiting
            .len()
            .saturating_sub(self.vacant)
            .min(most.saturating_sub(self.live));
        self.live += missing;
        self.vacant += missing;
        missing
    }
}

impl Pool {
    pub(super) fn new(function: Arc<Function>, tenant: Option<String>, processes: usize, waiting: usize) -> Self {
        Self {
            function,
            tenant,
            processes,
            waiting,
            state: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    /// Queues an event; returns how many processes must be started for it.
    pub(super) fn push(&self, job: Job) -> Result<usize, InvokeError> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(super::stopped());
        }
        state.waiting.retain(|job| !job.reply.is_closed());
        if state.waiting.len() >= self.waiting {
            return Err(InvokeError::TooManyRequests);
        }
        state.waiting.push_back(job);
        let missing = state.missing(self.processes);
        drop(state);
        self.arrived.notify_one();
        Ok(missing)
    }

    /// Takes the oldest event for a process that was vacant and is busy then.
    pub(super) fn take(&self) -> Option<Job> {
        let mut state = lock(&self.state);
        state.waiting.retain(|job| !job.reply.is_closed());
        let job = state.waiting.pop_front()?;
        state.vacant = state.vacant.saturating_sub(1);
        let more = !state.waiting.is_empty();
        drop(state);
        if more {
            // One wake-up is remembered, however many events came.
            self.arrived.notify_one();
        }
        Some(job)
    }

    /// Puts an event back that its process could not be given; the process is counted as vacant again, until it ends.
    pub(super) fn put_back(&self, job: Job) {
        let mut state = lock(&self.state);
        state.vacant += 1;
        if state.closed {
            drop(state);
            // The caller may have gone, too.
            let _ = job.reply.send(Err(super::stopped()));
            return;
        }
        state.waiting.push_front(job);
        drop(state);
        self.arrived.notify_one();
    }

    /// Counts a busy process as vacant again.
    pub(super) fn vacated(&self) {
        lock(&self.state).vacant += 1;
    }

    /// Counts a vacant process out, unless an event waits for it.
    pub(super) fn leave(&self) -> bool {
        let mut state = lock(&self.state);
        if !state.waiting.is_empty() {
            return false;
        }
        state.vacant = state.vacant.saturating_sub(1);
        state.live = state.live.saturating_sub(1);
        true
    }

    /// The oldest event, for a process that has to fail it because it never got ready.
    pub(super) fn oldest(&self) -> Option<Job> {
        let mut state = lock(&self.state);
        state.waiting.retain(|job| !job.reply.is_closed());
        state.waiting.pop_front()
    }

    /// Counts an ended process out; returns how many must be started in its place.
    pub(super) fn ended(&self, vacant: bool) -> usize {
        let mut state = lock(&self.state);
        state.live = state.live.saturating_sub(1);
        if vacant {
            state.vacant = state.vacant.saturating_sub(1);
        }
        state.missing(self.processes)
    }

    /// Takes no more events, and answers those that wait.
    pub(super) fn close(&self, error: &InvokeError) {
        let mut state = lock(&self.state);
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for job in waiting {
            // The caller may have gone.
            let _ = job.reply.send(Err(error.clone()));
        }
    }
}
