//! What commands say to the person who ran them: all of stdout and stderr but the log.
//!
//! `print!` panics when nobody reads on, as in `lamina doctor | head -1`. Here the program
//! ends then, without a word and with the status that a shell gives to any command that a
//! closed pipe ended. Clippy denies `print!` and its like in the whole crate.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process;

/// 128 and the number of SIGPIPE.
const CLOSED_PIPE: i32 = 141;

/// Says a line on stdout.
pub fn line(says: impl Display) {
    text(format_args!("{says}\n"));
}

/// Says this on stdout, as it is.
pub fn text(says: impl Display) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = write!(stdout, "{says}").and_then(|()| stdout.flush()) {
        end(&error);
    }
}

/// Says what is wrong, as a line on stderr. Where nobody reads that, the exit code says it.
pub fn wrong(says: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{says}");
}

fn end(error: &io::Error) -> ! {
    if error.kind() == ErrorKind::BrokenPipe {
        process::exit(CLOSED_PIPE);
    }
    wrong(format_args!("lamina: can't write the answer: {error}"));
    process::exit(1);
}
