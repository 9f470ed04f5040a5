//! Files of htpasswd: users, and hashes of their passwords by bcrypt or argon2id.

/// One user and what is known of his password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PasswordLine {
    pub user: Box<str>,
    pub hash: Box<str>,
    pub scheme: PasswordScheme,
}

/// How a password was hashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PasswordScheme {
    Bcrypt,
    Argon2id,
}

/// The most rounds of bcrypt, as a power of two: beyond it one guess takes many seconds.
const MOST_COST: u32 = 15;
/// The most KiB and passes of argon2id.
const MOST_KIB: u32 = 256 << 10;
const MOST_PASSES: u32 = 16;

/// Reads a file.
///
/// # Errors
/// What is wrong with it, without showing a hash.
pub fn parse(text: &str) -> Result<Vec<PasswordLine>, String> {
    let mut lines: Vec<PasswordLine> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = |why: String| format!("line {}: {why}", n + 1);
        let Some((user, hash)) = line.split_once(':') else {
            return Err(at("no colon; expected USER:HASH".to_owned()));
        };
        if user.is_empty() || lines.iter().any(|line| &*line.user == user) {
            return Err(at(
                "an empty or repeated user; expected each user once".to_owned()
            ));
        }
        let scheme = scheme(hash).map_err(at)?;
        lines.push(PasswordLine {
            user: user.into(),
            hash: hash.into(),
            scheme,
        });
    }
    match lines.is_empty() {
        true => {
            Err("no users; expected lines of USER:HASH, as `htpasswd -B` writes them".to_owned())
        }
        false => Ok(lines),
    }
}

fn scheme(hash: &str) -> Result<PasswordScheme, String> {
    const EXPECTED: &str = "expected bcrypt (`htpasswd -B`) or argon2id";
    let weak = |name: &str, why: &str| Err(format!("{name} {why}; {EXPECTED}"));
    let parts: Vec<&str> = hash.split('$').collect();
    match parts.as_slice() {
        ["", "2" | "2a" | "2b" | "2x" | "2y", cost, rest] => bcrypt(cost, rest),
        ["", "argon2id", "v=19", parameters, salt, digest] => argon2id(parameters, salt, digest),
        ["", "argon2i" | "argon2d", ..] => weak("this argon2", "resists one kind of attack alone"),
        ["", "apr1" | "1", ..] => weak("MD5 (`htpasswd -m`)", "is guessed by the billion a second"),
        ["", "5" | "6", ..] => weak("SHA-crypt", "needs no memory to be guessed"),
        _ if hash.starts_with("{SHA}") => weak("SHA-1 (`htpasswd -s`)", "has no salt"),
        _ => weak(
            "plain text, crypt or an unknown hash",
            "protects no password",
        ),
    }
}

fn bcrypt(cost: &str, rest: &str) -> Result<PasswordScheme, String> {
    let is_digit = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'.' || octet == b'/';
    if cost.len() != 2 || rest.len() != 53 || !rest.bytes().all(is_digit) {
        return Err("a damaged hash of bcrypt; expected $2y$COST$ and 53 characters".to_owned());
    }
    match cost.parse() {
        Ok(4..=MOST_COST) => Ok(PasswordScheme::Bcrypt),
        _ => Err(format!(
            "the cost {cost} of bcrypt; expected 04 to {MOST_COST}"
        )),
    }
}

fn argon2id(parameters: &str, salt: &str, digest: &str) -> Result<PasswordScheme, String> {
    let number = |name: char| {
        let mut all = parameters.split(',');
        all.find_map(|one| {
            one.strip_prefix(name)?
                .strip_prefix('=')?
                .parse::<u32>()
                .ok()
        })
    };
    let is_digit = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'+' || octet == b'/';
    let is_text = |text: &str| text.len() >= 11 && text.bytes().all(is_digit);
    match (number('m'), number('t'), number('p')) {
        _ if !is_text(salt) || !is_text(digest) => Err(
            "a damaged hash of argon2id; expected $argon2id$v=19$m=…,t=…,p=…$SALT$HASH".to_owned(),
        ),
        (Some(8..=MOST_KIB), Some(1..=MOST_PASSES), Some(1..=16)) => Ok(PasswordScheme::Argon2id),
        _ => Err(format!(
            "the parameters {parameters} of argon2id; expected m (KiB) up to {MOST_KIB}, t up to \
             {MOST_PASSES}, p up to 16"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2y$04$abcdefghijklmnopqrstuuKZ0bl9bEqz1wXNpTHpO8zGkh2jVQv3y";
    const ARGON: &str = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzYWx0$MTIzNDU2Nzg5MDEyMzQ1Njc4OTA";

    #[test]
    fn strong_hashes_are_taken() {
        let text = format!("# staff\nalice:{BCRYPT}\n\nbob:{ARGON}\r\n");
        let lines = parse(&text).unwrap();
        assert_eq!(&*lines[0].user, "alice");
        assert_eq!(lines[0].scheme, PasswordScheme::Bcrypt);
        assert_eq!(
            (&*lines[1].hash, lines[1].scheme),
            (ARGON, PasswordScheme::Argon2id)
        );
    }

    #[test]
    fn weak_and_damaged_ones_are_refused_with_the_reason() {
        for (line, said) in [
            ("a:$apr1$salt$abcdefghijklmnopqrstuv", "MD5"),
            ("a:$1$salt$abcdefghijklmnopqrstuv", "MD5"),
            ("a:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "no salt"),
            ("a:$6$salt$abc", "SHA-crypt"),
            ("a:s3cret", "plain text"),
            ("a:rqXexS6ZhobKA", "plain text"),
            (
                "a:$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$abcdefghijkl",
                "argon2",
            ),
            ("a:$2y$04$short", "damaged"),
            (
                "a:$2y$31$abcdefghijklmnopqrstuuKZ0bl9bEqz1wXNpTHpO8zGkh2jVQv3y",
                "cost 31",
            ),
            (
                "a:$argon2id$v=19$m=99999999,t=1,p=1$c29tZXNhbHRzYWx0$MTIzNDU2Nzg5MDEy",
                "parameters",
            ),
            ("alice", "no colon"),
            (":x", "empty"),
            ("", "no users"),
        ] {
            let refused = parse(line).unwrap_err();
            assert!(refused.contains(said), "{line}: {refused}");
            let hash = line.split_once(':').map_or("", |(_, hash)| hash);
            assert!(hash.len() < 2 || !refused.contains(hash), "{refused}");
        }
        let twice = format!("a:{BCRYPT}\na:{BCRYPT}\n");
        assert!(parse(&twice).unwrap_err().starts_with("line 2"));
    }
}
