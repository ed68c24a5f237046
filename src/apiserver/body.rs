//! Request bodies: read whole, up to a limit.

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::api::error::ApiError;

/// Largest request body, as upstream has it.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

/// Reads a body of at most [`MAX_BODY`] bytes; one that arrived in one piece is not copied.
pub async fn read<B>(body: B) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_large = || ApiError::too_large(format!("limit is {MAX_BODY}"));
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => Err(ApiError::bad_request(format!("unable to read the request body: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::{Full, StreamBody};

    use super::*;

    #[tokio::test]
    async fn body_within_the_limit_is_read_and_one_beyond_is_413() {
        let body = |len: usize| Full::new(Bytes::from(vec![b'x'; len]));
        assert_eq!(read(body(MAX_BODY)).await.unwrap().len(), MAX_BODY);
        assert_eq!(read(body(MAX_BODY + 1)).await.unwrap_err().code(), 413);
    }

    #[tokio::test]
    async fn body_of_unknown_length_is_cut_off_at_the_limit() {
        let endless = stream::repeat_with(|| {
            Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from_static(&[b'x'; 65536])))
        });
        assert_eq!(read(StreamBody::new(endless)).await.unwrap_err().code(), 413);
    }

    #[tokio::test]
    async fn broken_body_is_the_clients_fault() {
        let broken = stream::iter([Err::<http_body::Frame<Bytes>, _>(std::io::Error::other("reset"))]);
        assert_eq!(read(StreamBody::new(broken)).await.unwrap_err().code(), 400);
    }
}
