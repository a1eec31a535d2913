//! Many names looked for at once: a tree of folded words, walked word by word.

use std::collections::BTreeMap;

use unicode_normalization::char::is_combining_mark;

use super::Found;
use crate::identity::fold::fold;

/// Longest name that is looked for; a longer one is looked for by its beginning. Units: words.
const MAX_WORDS: usize = 24;
/// Shortest name, and shortest code that is looked for as a word. Units: letters and digits.
const MIN_NAME_LETTERS: usize = 3;
const MIN_CODE_LETTERS: usize = 6;
/// Most branches of the tree: ten thousand hidden items with names of twenty words.
const MAX_BRANCHES: usize = 200_000;
/// Words that name nothing in particular: a name of such words alone is not looked for.
const GENERIC: [&str; 64] = [
    "active",
    "acute",
    "and",
    "arzt",
    "assessment",
    "befund",
    "bericht",
    "care",
    "chronic",
    "clinical",
    "complete",
    "completed",
    "condition",
    "consultation",
    "current",
    "diagnose",
    "diagnosis",
    "disease",
    "disorder",
    "document",
    "encounter",
    "entered",
    "error",
    "exam",
    "examination",
    "final",
    "finding",
    "follow",
    "for",
    "general",
    "health",
    "history",
    "info",
    "information",
    "letter",
    "med",
    "medical",
    "medication",
    "negative",
    "new",
    "no",
    "none",
    "normal",
    "note",
    "notes",
    "observation",
    "of",
    "other",
    "patient",
    "plan",
    "positive",
    "preliminary",
    "problem",
    "procedure",
    "report",
    "result",
    "scan",
    "situation",
    "summary",
    "test",
    "the",
    "unknown",
    "visit",
    "yes",
];

/// The tree: words by number, branches from a node by a word, and what ends at a node.
#[derive(Default)]
pub(super) struct Phrases {
    words: BTreeMap<String, u32>,
    branches: BTreeMap<(u32, u32), u32>,
    ends: BTreeMap<u32, Vec<(usize, Found)>>,
}

impl Phrases {
    /// Looks for a name, unless it says too little; a trailing `(disorder)` is left away.
    pub fn add_name(&mut self, name: &str, place: usize) {
        let plain = name.trim_end().strip_suffix(')').and_then(|rest| rest.rsplit_once('(')).map(|(before, _)| before);
        let folded = plain.map(folded).filter(|words| is_telling(words)).unwrap_or_else(|| folded(name));
        if is_telling(&folded) {
            self.add(folded, (place, Found::Text));
        }
    }

    /// Looks for a code where no system stands beside it: only a long one with a digit is not a word by chance.
    pub fn add_code(&mut self, code: &str, place: usize) {
        let folded = folded(code);
        let letters: usize = folded.iter().map(|word| word.chars().count()).sum();
        if letters >= MIN_CODE_LETTERS && code.bytes().any(|byte| byte.is_ascii_digit()) {
            self.add(folded, (place, Found::Code));
        }
    }

    fn add(&mut self, words: Vec<String>, end: (usize, Found)) {
        if self.branches.len() + MAX_WORDS > MAX_BRANCHES {
            return;
        }
        let mut node = 0;
        for word in words.into_iter().take(MAX_WORDS) {
            let fresh = u32::try_from(self.words.len()).unwrap_or(u32::MAX);
            let word = *self.words.entry(word).or_insert(fresh);
            let fresh = u32::try_from(self.branches.len() + 1).unwrap_or(u32::MAX);
            node = *self.branches.entry((node, word)).or_insert(fresh);
        }
        let ends = self.ends.entry(node).or_default();
        if !ends.contains(&end) {
            ends.push(end);
        }
    }

    /// Tells what ends anywhere in a text. Memory is bounded by the longest name, whatever the text.
    pub fn find(&self, text: &str, told: &mut dyn FnMut(usize, Found)) {
        if self.branches.is_empty() {
            return;
        }
        let mut open: Vec<u32> = Vec::with_capacity(MAX_WORDS);
        for_each_word(text, &mut |word| {
            let Some(word) = self.words.get(word) else {
                open.clear();
                return;
            };
            open.push(0);
            open.retain_mut(|node| {
                let next = self.branches.get(&(*node, *word));
                next.inspect(|next| *node = **next).is_some()
            });
            for node in &open {
                for (place, found) in self.ends.get(node).into_iter().flatten() {
                    told(*place, *found);
                }
            }
        });
    }
}

/// Whether a name says something: long enough, and not of generic words and numbers alone.
fn is_telling(words: &[String]) -> bool {
    let letters: usize = words.iter().map(|word| word.chars().count()).sum();
    let is_own = |word: &String| !GENERIC.contains(&word.as_str()) && word.chars().any(char::is_alphabetic);
    let own: usize = words.iter().filter(|word| is_own(word)).map(|word| word.chars().count()).sum();
    let least = if words.iter().any(|word| word.chars().any(stands_alone)) { 2 } else { MIN_NAME_LETTERS };
    letters >= least && own >= least
}

fn folded(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for_each_word(text, &mut |word| {
        if words.len() < MAX_WORDS {
            words.push(word.to_owned());
        }
    });
    words
}

/// Calls for each word of a text, folded: runs of letters and digits; a sign of a script without spaces is a word.
fn for_each_word(text: &str, each: &mut dyn FnMut(&str)) {
    let mut word = String::new();
    for character in text.chars() {
        if character.is_ascii_alphanumeric() {
            word.push(character.to_ascii_lowercase());
        } else if stands_alone(character) {
            end_word(&mut word, each);
            word.push(character);
            end_word(&mut word, each);
        } else if character.is_alphanumeric() || is_combining_mark(character) {
            word.push(character);
        } else if !matches!(character, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}') {
            end_word(&mut word, each);
        }
    }
    end_word(&mut word, each);
}

fn end_word(word: &mut String, each: &mut dyn FnMut(&str)) {
    if word.is_ascii() {
        if !word.is_empty() {
            each(word);
        }
    } else {
        let folded = fold(word);
        if !folded.is_empty() {
            each(&folded);
        }
    }
    word.clear();
}

/// Thai to Khmer, and from the radicals to the end of Hangul, and the ideographs beyond.
fn stands_alone(character: char) -> bool {
    matches!(character, '\u{e00}'..='\u{eff}' | '\u{1780}'..='\u{17ff}' | '\u{2e80}'..='\u{d7ff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
        && character.is_alphanumeric()
}
