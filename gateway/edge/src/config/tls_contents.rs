//! Notes what the files hold by which origins are verified, or which they are shown: the names of files
//! do not tell that there is something else in them.

use sha2::{Digest, Sha256};

use super::GatewayConfig;
use super::text_file::read_at_most;

/// The most bytes of such a file that are compared.
const MOST_COMPARED: u64 = 16 << 20;

/// How many digits of a digest are shown.
const SHOWN: usize = 16;

/// Reads the files, whose paths are complete. What can't be read is told where it is used.
pub fn note(config: &mut GatewayConfig) {
    for upstream in config.upstreams.values_mut() {
        let tls = &mut upstream.tls;
        let contents = tls.named_files().filter_map(|(key, file)| {
            let content = read_at_most(file, MOST_COMPARED).ok()?;
            Some((key, shown_digest(&content)))
        });
        tls.contents = contents.collect();
    }
}

/// The beginning of the digest of a content.
pub fn shown_digest(content: &[u8]) -> String {
    let mut digest = format!("{:x}", Sha256::digest(content));
    digest.truncate(SHOWN);
    digest
}
