//! A reader of the part of CDDL (RFC 8610) that the specification uses.

use std::collections::{BTreeMap, BTreeSet};

/// Tokens of some CDDL; comments and white space are gone.
pub fn tokens(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for line in text.lines() {
        let line = line.split(';').next().unwrap();
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = match first {
                '"' => rest[1..].find('"').expect("a string ends on its line") + 2,
                c if word(c) || c == '.' => rest.find(|c| !(word(c) || c == '.')).unwrap_or(rest.len()),
                _ => 1,
            };
            out.push(rest[..length].to_owned());
            rest = rest[length..].trim_start();
        }
    }
    out
}

fn word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// The rules of a specification: name (with its parameter, where it has one) and body, as tokens.
pub struct Rules(pub BTreeMap<String, Vec<String>>);

impl Rules {
    /// Reads all rules, insisting on the grammar and on every name being defined once.
    pub fn parse(text: &str) -> Self {
        let tokens = tokens(text);
        let mut reader = Reader { tokens: &tokens, at: 0, names: BTreeSet::new() };
        let mut rules = BTreeMap::new();
        let mut parameters = BTreeSet::new();
        while reader.at < tokens.len() {
            let name = reader.name();
            if reader.take("<") {
                parameters.insert(reader.name());
                reader.expect(">");
            }
            reader.expect("=");
            let from = reader.at;
            reader.alternatives();
            assert!(rules.insert(name.clone(), tokens[from..reader.at].to_vec()).is_none(), "{name} is defined twice");
        }
        const PRELUDE: [&str; 8] = ["uint", "int", "bstr", "tstr", "bool", "null", "true", "false"];
        for name in &reader.names {
            let known = rules.contains_key(name) || PRELUDE.contains(&name.as_str()) || parameters.contains(name);
            assert!(known, "{name} is used and not defined");
        }
        Self(rules)
    }
}

struct Reader<'a> {
    tokens: &'a [String],
    at: usize,
    names: BTreeSet<String>,
}

impl Reader<'_> {
    fn peek(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", String::as_str)
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.peek(0) == token;
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, token: &str) {
        let context = self.tokens[self.at.saturating_sub(6)..(self.at + 3).min(self.tokens.len())].join(" ");
        assert!(self.take(token), "expected {token} in: {context}");
    }

    fn name(&mut self) -> String {
        let name = self.peek(0).to_owned();
        assert!(name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'), "{name:?} is no name");
        self.at += 1;
        name
    }

    fn number(&self) -> bool {
        let digits = self.peek(0).trim_start_matches('-');
        !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.')
    }

    /// type = type1 *("/" type1)
    fn alternatives(&mut self) {
        self.controlled();
        while self.take("/") {
            self.controlled();
        }
    }

    fn controlled(&mut self) {
        self.operand();
        if [".size", ".cbor", ".regexp"].contains(&self.peek(0)) {
            self.at += 1;
            self.operand();
        }
    }

    fn operand(&mut self) {
        if self.take("[") {
            self.group("]");
        } else if self.take("{") {
            self.group("}");
        } else if self.take("&") {
            self.expect("(");
            self.group(")");
        } else if self.take("(") {
            self.alternatives();
            self.expect(")");
        } else if self.take("#") {
            assert!(self.number(), "a tag has a number");
            self.at += 1;
            self.expect("(");
            self.alternatives();
            self.expect(")");
        } else if self.number() || self.peek(0).starts_with('"') {
            self.at += 1;
        } else {
            let name = self.name();
            self.names.insert(name);
            if self.take("<") {
                self.controlled();
                self.expect(">");
            }
        }
    }

    fn group(&mut self, end: &str) {
        while !self.take(end) {
            if !self.take("?") && self.number() && self.peek(1) == "*" {
                self.at += 1;
            }
            if self.take("*") && self.number() && self.peek(1) != ":" {
                self.at += 1;
            }
            if self.peek(1) == ":" {
                self.at += 2;
            }
            self.alternatives();
            if !self.take(",") {
                self.expect(end);
                return;
            }
        }
    }
}
