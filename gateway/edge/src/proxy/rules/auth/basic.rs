//! Basic authentication (RFC 7617).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use super::config::htpasswd::{self, PasswordLine};
use super::passwords::{PasswordMemory, PasswordVerdict, ShownPassword};
use super::{AuthRefusal, AuthenticatedUser, realm};

/// The users of a route.
pub struct BasicAuth {
    users: HashMap<Box<str>, Arc<PasswordLine>>,
    lines: Box<[Arc<PasswordLine>]>,
    challenge: HeaderValue,
    memory: Arc<PasswordMemory>,
}

impl BasicAuth {
    /// `text` is the file, which was checked.
    pub fn new(text: &str, realm_name: Option<&str>, memory: &Arc<PasswordMemory>) -> Self {
        let lines = htpasswd::parse(text).unwrap_or_default();
        let lines: Box<[_]> = lines.into_iter().map(Arc::new).collect();
        let users = lines
            .iter()
            .map(|line| (line.user.clone(), Arc::clone(line)));
        Self {
            users: users.collect(),
            lines: lines.clone(),
            challenge: realm("Basic", realm_name, ", charset=\"UTF-8\""),
            memory: Arc::clone(memory),
        }
    }

    /// Whether a password must be hashed to say something about this request.
    pub fn may_wait(&self, headers: &HeaderMap) -> bool {
        let Some(shown) = shown(headers) else {
            return false;
        };
        let line = self.users.get(&*shown.user);
        line.is_none_or(|line| !self.memory.knows(&shown, line, Instant::now()))
    }

    /// Finds out who sends a request.
    ///
    /// # Errors
    /// What he gets if that is nobody.
    pub async fn admit(&self, headers: &HeaderMap) -> Result<AuthenticatedUser, AuthRefusal> {
        let Some(shown) = shown(headers) else {
            return Err(match headers.contains_key(AUTHORIZATION) {
                true => AuthRefusal::wrong(&self.challenge),
                false => AuthRefusal::missing(&self.challenge),
            });
        };
        // For a user who does not exist the line of another is compared, always of the same one, so
        // that the time of the answer tells nobody who exists.
        let line = self.users.get(&*shown.user).or_else(|| {
            let number = self.memory.number_of(&shown.user);
            self.lines.get(number.checked_rem(self.lines.len())?)
        });
        let Some(line) = line else {
            return Err(AuthRefusal::wrong(&self.challenge));
        };
        let user = AuthenticatedUser::named(&shown.user);
        if *shown.user == *line.user && self.memory.knows(&shown, line, Instant::now()) {
            return Ok(user);
        }
        match self.memory.compare(shown, line).await {
            PasswordVerdict::Right => Ok(user),
            PasswordVerdict::Wrong => Err(AuthRefusal::wrong(&self.challenge)),
            PasswordVerdict::TooManyWait => Err(AuthRefusal::unable()),
        }
    }

    /// The rule in words.
    pub fn describe(&self) -> String {
        format!("basic, {} users", self.lines.len())
    }
}

/// What a request shows. None: nothing, or nothing that can be read.
fn shown(headers: &HeaderMap) -> Option<ShownPassword> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return None;
    };
    let (scheme, rest) = line.as_bytes().split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = memchr::memchr(b':', &pair)?;
    let user = String::from_utf8(pair[..colon].to_vec()).ok()?;
    let password = pair[colon + 1..].to_vec();
    Some(ShownPassword { user, password })
}
