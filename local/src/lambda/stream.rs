//! A streamed response between the process that writes it and whoever reads it.

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::{MAX_RESPONSE_BYTES, Outcome};

/// What a function writes, byte for byte, in the pieces in which it wrote it. It ends well with `None`; after an error
/// nothing comes. Dropping it is the reader's departure.
pub type ResponseStream = BoxStream<'static, Result<Bytes, StreamError>>;

/// The end of a stream whose function failed, crashed or ran out of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the function failed: {}", String::from_utf8_lossy(document))]
pub struct StreamError {
    /// JSON with `errorType` and `errorMessage`, as in [`Outcome::FunctionError`].
    pub document: Bytes,
}

/// How many pieces may wait for the reader, before the function waits.
pub(super) const PIECES: usize = 16;

/// The side of the supervisor, who alone says that a stream is whole: pieces that just stop coming are none.
pub(super) struct Ending(oneshot::Sender<Result<(), Bytes>>);

impl Ending {
    /// The reader may have gone.
    pub(super) fn complete(self) {
        let _ = self.0.send(Ok(()));
    }

    /// As [`Self::complete`], with an error document.
    pub(super) fn fail(self, document: Bytes) {
        let _ = self.0.send(Err(document));
    }
}

/// A reader that has its pieces from the Runtime API and its end from the supervisor.
pub(super) struct Reader {
    pieces: mpsc::Receiver<Bytes>,
    end: oneshot::Receiver<Result<(), Bytes>>,
}

impl Reader {
    pub(super) fn new(pieces: mpsc::Receiver<Bytes>) -> (Self, Ending) {
        let (sender, end) = oneshot::channel();
        (Self { pieces, end }, Ending(sender))
    }

    pub(super) fn into_stream(self) -> ResponseStream {
        stream::unfold(Some(self), |reader| async {
            let mut reader = reader?;
            if let Some(piece) = reader.pieces.recv().await {
                return Some((Ok(piece), Some(reader)));
            }
            match reader.end.await {
                Ok(Ok(())) => None,
                Ok(Err(document)) => Some((Err(StreamError { document }), None)),
                // The emulator is gone.
                Err(_) => Some((Err(StreamError { document: cut_off() }), None)),
            }
        })
        .boxed()
    }
}

/// An outcome as `InvokeWithResponseStream` has it: a buffered answer is one piece.
pub(super) fn of_outcome(outcome: Outcome) -> ResponseStream {
    let only = match outcome {
        Outcome::Buffered(bytes) => Ok(bytes),
        Outcome::FunctionError(document) => Err(StreamError { document }),
    };
    stream::iter([only]).boxed()
}

/// A streamed response as `Invoke` has it: all of it, at its end.
pub(super) async fn collect(mut stream: ResponseStream) -> Outcome {
    let mut whole = Some(BytesMut::new());
    while let Some(piece) = stream.next().await {
        match piece {
            // It is read to its end all the same: a reader that goes would be a departed one.
            Ok(piece) => {
                whole = whole.filter(|bytes| bytes.len() + piece.len() <= MAX_RESPONSE_BYTES);
                if let Some(bytes) = &mut whole {
                    bytes.extend_from_slice(&piece);
                }
            }
            Err(StreamError { document }) => return Outcome::FunctionError(document),
        }
    }
    match whole {
        Some(bytes) => Outcome::Buffered(bytes.freeze()),
        None => Outcome::FunctionError(too_large()),
    }
}

/// What Lambda says of an answer that is larger than [`MAX_RESPONSE_BYTES`].
pub(super) fn too_large() -> Bytes {
    let document = json!({
        "errorType": "Function.ResponseSizeTooLarge",
        "errorMessage": format!(
            "Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
        ),
    });
    Bytes::from(document.to_string())
}

fn cut_off() -> Bytes {
    let document = json!({
        "errorType": "Runtime.TruncatedResponse",
        "errorMessage": "The execution environment is gone",
    });
    Bytes::from(document.to_string())
}
