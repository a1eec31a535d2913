//! What people see: words on standard output, progress on a terminal's standard error, JSON when it was asked for.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::failure::Failure;

/// The width of a table where no terminal tells its own. Units: characters.
const WIDTH: u16 = 132;

/// A table of sentences, wrapped to the width of the terminal, or of a page.
#[must_use]
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() {
        table.set_width(WIDTH);
    }
    table.set_header(header);
    table
}

/// Where words and progress go.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    json: bool,
}

impl Console {
    /// With `json`, nothing but one JSON document reaches standard output.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether JSON was asked for.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Says a line to people; silent with JSON.
    pub fn say(self, line: impl AsRef<str>) {
        if !self.json {
            print_line(&harmless(line.as_ref()));
        }
    }

    /// Prints the command's result as JSON; silent without.
    pub fn json(self, value: &impl Serialize) {
        if self.json {
            print_line(
                &serde_json::to_string_pretty(value).expect("what we report is made of maps, lists and numbers"),
            );
        }
    }

    /// Prints one result in the form that was asked for.
    pub fn result(self, value: &impl Serialize, line: impl AsRef<str>) {
        self.say(line);
        self.json(value);
    }

    /// Says something beside the result, on standard error, so that the result stays what was asked for.
    pub fn note(self, line: impl AsRef<str>) {
        // Nothing can be done about a standard error that is closed.
        let _ = writeln!(std::io::stderr().lock(), "{}", harmless(line.as_ref()));
    }

    /// Whether somebody sits at the terminal who can be asked.
    #[must_use]
    pub fn can_ask(self) -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Asks a question that is answered with yes or no; everything but a yes is a no.
    ///
    /// # Errors
    /// [`Failure`] when nobody can be asked, or standard input ends.
    pub fn confirm(self, question: &str, instead: &str) -> Result<bool, Failure> {
        // With JSON nobody has read what the question is about.
        if self.json || !self.can_ask() {
            return Err(Failure::usage("this needs a confirmation and nobody can be asked").hint(instead));
        }
        let cannot = |e| Failure::environment("the answer cannot be read", e);
        let mut stderr = std::io::stderr().lock();
        write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush()).map_err(cannot)?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map_err(cannot)?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// A spinner for something that takes a while; invisible when nobody watches.
    #[must_use]
    pub fn progress(self, message: impl Into<String>) -> Progress {
        let visible = !self.json && std::io::stderr().is_terminal();
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("the template is well formed");
        let bar = ProgressBar::with_draw_target(None, target).with_style(style).with_message(message.into());
        if visible {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Progress(bar)
    }

    /// Tells a failure and what to do about it; with JSON as one line of it, on standard error too, for whoever reads that by program.
    #[must_use]
    pub fn fail(self, failure: &Failure) -> ExitCode {
        let mut stderr = std::io::stderr().lock();
        if self.json {
            let (error, code) = (failure.to_string(), failure.exit.code());
            let told = serde_json::json!({ "error": error, "try": failure.advice(), "exit": code });
            let _ = writeln!(stderr, "{told}");
            return failure.exit.into();
        }
        // Nothing can be done about a standard error that is closed.
        let _ = writeln!(stderr, "error: {}", harmless(&failure.to_string()));
        if let Some(hint) = failure.advice() {
            let _ = writeln!(stderr, "  try: {hint}");
        }
        failure.exit.into()
    }
}

/// A text without what a terminal obeys: titles, states and reasons are written by others.
///
/// Security: control characters move the cursor and rewrite what was said; marks of writing direction turn it round.
fn harmless(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control() && !matches!(c, '\n' | '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if obeyed(c) { '\u{fffd}' } else { c }).collect()
}

/// Whoever reads standard output may stop reading; that is not our failure.
fn print_line(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}");
    let _ = stdout.flush();
}

/// Something that takes a while; gone from the screen when dropped.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Changes what it says.
    pub fn update(&self, message: impl Into<String>) {
        self.0.set_message(message.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_does_not_command_the_terminal() {
        assert_eq!(harmless("Asthma\u{1b}[2J\r\u{7}"), "Asthma\u{fffd}[2J\u{fffd}\u{fffd}");
        assert_eq!(harmless("\u{202e}txt\u{2066}"), "\u{fffd}txt\u{fffd}");
        let said = "Größe 1,80 m\n\t█▀▄ ─ ß";
        assert_eq!(harmless(said), said);
    }
}
