//! AWS Signature Version 4, as its specification has it: the canonical request, the string
//! to sign, the derived key.

use std::fmt::Write;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// The moment of a signature.
pub struct Stamp {
    /// `YYYYMMDD`.
    pub day: String,
    /// `YYYYMMDDTHHMMSSZ`.
    pub time: String,
}

/// Who signs, and for what.
pub struct Scope<'a> {
    pub region: &'a str,
    pub service: &'a str,
    pub access_key: &'a str,
    pub secret_key: &'a str,
}

impl Stamp {
    /// Of seconds since 1970.
    pub fn at(seconds: u64) -> Self {
        let (year, month, date) = date(seconds / 86_400);
        let of_day = seconds % 86_400;
        let day = format!("{year:04}{month:02}{date:02}");
        let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
        let time = format!("{day}T{hour:02}{minute:02}{second:02}Z");
        Self { day, time }
    }
}

/// Year, month and day of a count of days since 1970, in the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let (mut year, mut left) = (1970, days);
    while left >= 365 + u64::from(is_leap(year)) {
        left -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

impl Scope<'_> {
    /// The value of `Authorization`. `fields` are those that are signed, sorted by name, in
    /// lower case; `path` is encoded as the request has it.
    pub fn authorization(
        &self,
        method: &str,
        path: &str,
        query: &str,
        fields: &[(&str, &str)],
        body_hash: &str,
        stamp: &Stamp,
    ) -> String {
        let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines: String = fields
            .iter()
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        let query = canonical_query(query);
        let request = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{body_hash}");
        let scope = format!(
            "{}/{}/{}/aws4_request",
            stamp.day, self.region, self.service
        );
        let hash = hex(&Sha256::digest(request));
        let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{hash}", stamp.time);
        let signature = hex(&mac(&self.key(stamp), &text));
        let credential = self.access_key;
        format!(
            "AWS4-HMAC-SHA256 Credential={credential}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
    }

    fn key(&self, stamp: &Stamp) -> Vec<u8> {
        let secret = format!("AWS4{}", self.secret_key).into_bytes();
        let parts = [
            stamp.day.as_str(),
            self.region,
            self.service,
            "aws4_request",
        ];
        parts.iter().fold(secret, |key, part| mac(&key, part))
    }
}

/// Sorted by name and value, each parameter with a `=`.
fn canonical_query(query: &str) -> String {
    let pieces = query.split('&').filter(|piece| !piece.is_empty());
    let mut pairs: Vec<_> = pieces
        .map(|piece| piece.split_once('=').unwrap_or((piece, "")))
        .collect();
    pairs.sort_unstable();
    let pairs: Vec<_> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification: an object of S3, read by range.
    #[test]
    fn the_signature_is_that_of_the_specification() {
        let scope = Scope {
            region: "us-east-1",
            service: "s3",
            access_key: "AKIAIOSFODNN7EXAMPLE",
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        };
        let stamp = Stamp::at(1_369_353_600);
        assert_eq!(stamp.time, "20130524T000000Z");
        let empty = hex(&Sha256::digest(""));
        let fields = [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("range", "bytes=0-9"),
            ("x-amz-content-sha256", &empty),
            ("x-amz-date", &stamp.time),
        ];
        let signed = scope.authorization("GET", "/test.txt", "", &fields, &empty, &stamp);
        let signature = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert!(signed.ends_with(signature), "{signed}");
    }

    #[test]
    fn a_query_is_sorted() {
        assert_eq!(
            canonical_query("b=2&a=2&a=1&lifecycle"),
            "a=1&a=2&b=2&lifecycle="
        );
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(20_780), (2026, 11, 23));
    }
}
