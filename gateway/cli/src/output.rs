//! What commands print for the person who ran them: everything on stdout and stderr except the log.
//!
//! `print!` panics when nobody reads any more, as in `lamina doctor | head -1`. Here the program
//! ends silently in that case, with the status that a shell gives to any command that was ended by
//! a closed pipe. Clippy forbids `print!` and similar macros in the whole crate.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process;

/// 128 plus the number of SIGPIPE.
const CLOSED_PIPE: i32 = 141;

/// Prints a line on stdout.
pub fn line(shown: impl Display) {
    text(format_args!("{shown}\n"));
}

/// Prints this on stdout as it is.
pub fn text(shown: impl Display) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = write!(stdout, "{shown}").and_then(|()| stdout.flush()) {
        end(&error);
    }
}

/// Prints an error as a line on stderr. If nobody reads it, the exit code still tells.
pub fn error(shown: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{shown}");
}

/// A word in red, if a person reads it at a terminal that has colours.
pub fn alarming(word: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    match !plain && io::stdout().is_terminal() {
        true => format!("\x1b[1;31m{word}\x1b[0m"),
        false => word.to_owned(),
    }
}

fn end(error: &io::Error) -> ! {
    if error.kind() == ErrorKind::BrokenPipe {
        process::exit(CLOSED_PIPE);
    }
    self::error(format_args!("lamina: can't write the answer: {error}"));
    process::exit(1);
}
