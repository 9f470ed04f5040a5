//! What proxies send to a [`FaultyTarget`](crate::target::Target): as much of HTTP/1.1 as they use.

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt};

/// More than any proxy adds to the little that the client sends.
const MOST_BYTES: usize = 64 * 1024;

/// A request that was read to its end.
#[derive(PartialEq, Eq, Debug)]
pub struct ReadRequest {
    pub method: String,
    pub path: String,
}

/// Reads a request with its body; none when the connection ends before one. `read` keeps what
/// came already of the next one.
///
/// # Errors
/// When the connection fails in the middle, or with a request that is not understood.
pub async fn read_request(
    stream: &mut (impl AsyncRead + Unpin),
    read: &mut Vec<u8>,
) -> anyhow::Result<Option<ReadRequest>> {
    loop {
        if let Some((request, length)) = whole_request(read)? {
            read.drain(..length);
            return Ok(Some(request));
        }
        ensure!(read.len() < MOST_BYTES, "a request of {MOST_BYTES} bytes");
        if stream.read_buf(read).await? == 0 {
            ensure!(read.is_empty(), "the connection ended within a request");
            return Ok(None);
        }
    }
}

/// The first request of these bytes and its length, if it is there to its end.
fn whole_request(bytes: &[u8]) -> anyhow::Result<Option<(ReadRequest, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).context("a head that is text")?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        bail!("a request line without a path: {head}");
    };
    let length = end + 4 + body_length(lines)?;
    let request = ReadRequest {
        method: method.to_owned(),
        path: path.to_owned(),
    };
    Ok((bytes.len() >= length).then_some((request, length)))
}

fn body_length<'a>(fields: impl Iterator<Item = &'a str>) -> anyhow::Result<usize> {
    let mut length = 0;
    for (name, value) in fields.filter_map(|field| field.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().context("Content-Length")?;
        }
        ensure!(
            !name.eq_ignore_ascii_case("transfer-encoding"),
            "a proxy sends a body in chunks, which this origin does not read"
        );
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::{ReadRequest, read_request};

    #[tokio::test]
    async fn requests_are_read_with_their_bodies_one_after_the_other() {
        let bytes = b"POST /1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\n\r\n";
        let (mut stream, mut read) = (&bytes[..], Vec::new());
        for (method, path) in [("POST", "/1"), ("GET", "/2")] {
            let (method, path) = (method.to_owned(), path.to_owned());
            let request = read_request(&mut stream, &mut read).await.expect("is HTTP");
            assert_eq!(request, Some(ReadRequest { method, path }));
        }
        assert_eq!(
            read_request(&mut stream, &mut read).await.expect("ends"),
            None
        );
    }

    #[tokio::test]
    async fn a_request_without_the_end_of_its_body_has_not_arrived() {
        let bytes = b"POST /1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nab";
        let (mut stream, mut read) = (&bytes[..], Vec::new());
        assert!(read_request(&mut stream, &mut read).await.is_err());
    }
}
