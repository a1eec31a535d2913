//! What can be read as words: narratives, and attachments that are text.

use crate::json::Value;

/// As much of an attachment is read. Units: bytes, decoded.
pub(super) const MAX_ATTACHMENT_BYTES: usize = 4 << 20;
/// Kinds of content that are text whatever their name begins with.
const TEXT_KINDS: [&str; 5] = ["html", "hl7", "json", "markdown", "xml"];

/// Whether an object is an Attachment or a Binary: has `data` beside what says that it is content.
pub(super) fn is_attachment(object: Value<'_>) -> bool {
    let holds = |name: &str| object.member(name).is_some();
    holds("contentType") || object.text_of("resourceType").as_deref() == Some("Binary") || {
        object.key().or_else(|| object.parent().and_then(Value::key)).is_some_and(|key| {
            let key = key.to_ascii_lowercase();
            key.ends_with("attachment") || key == "presentedform" || key == "photo" || key == "content"
        })
    }
}

/// The readings of an attachment, none if it is no text: as [`markup`] where it may be one.
///
/// What calls itself text is read as UTF-8, else as Latin-1; anything else only if it is UTF-8 without control characters.
pub(super) fn attachment(base64: &str, kind: Option<&str>) -> Vec<String> {
    let bytes = decoded(base64);
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    let is_text = kind.starts_with("text/") || TEXT_KINDS.iter().any(|text| kind.contains(text));
    let valid = match std::str::from_utf8(&bytes) {
        Ok(text) => Some(text),
        // A character may be cut where reading stops.
        Err(e) if bytes.len() - e.valid_up_to() < 4 && e.error_len().is_none() => {
            std::str::from_utf8(&bytes[..e.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let is_plain = |text: &str| !text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{c}'));
    match valid {
        Some(text) if is_text || is_plain(text) => markup(text),
        None if is_text => markup(&bytes.iter().map(|byte| char::from(*byte)).collect::<String>()),
        _ => Vec::new(),
    }
}

/// A marked-up text twice: without its tags, and with them, for what stands in attributes. Plain text once.
pub(super) fn markup(text: &str) -> Vec<String> {
    if !text.contains('<') {
        return vec![unescaped(text)];
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tag)) = rest.split_once('<') {
        plain.push_str(before);
        let (name, after) = tag.split_once('>').unwrap_or((tag, ""));
        // A tag parts words, unless it may stand within one.
        if !is_inline(name) {
            plain.push(' ');
        }
        rest = after;
    }
    plain.push_str(rest);
    vec![unescaped(&plain), unescaped(text)]
}

/// Whether a tag may stand in the middle of a word.
fn is_inline(tag: &str) -> bool {
    let name = tag.trim_start_matches('/').split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    matches!(name.to_ascii_lowercase().as_str(), "b" | "i" | "u" | "em" | "strong" | "span" | "sup" | "sub" | "wbr")
}

/// A text with its entities resolved; an accented letter comes without its accent, which folding takes away anyhow.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, entity)) = rest.split_once('&') {
        out.push_str(before);
        let end = entity.bytes().take(12).position(|byte| byte == b';');
        match end.and_then(|end| Some((resolved(&entity[..end])?, end))) {
            Some((character, end)) => {
                out.push(character);
                rest = &entity[end + 1..];
            }
            None => {
                out.push('&');
                rest = entity;
            }
        }
    }
    out.push_str(rest);
    out
}

fn resolved(entity: &str) -> Option<char> {
    if let Some(number) = entity.strip_prefix('#') {
        let hex = number.strip_prefix(['x', 'X']);
        let code = hex.map_or_else(|| number.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok());
        return code.and_then(char::from_u32);
    }
    let accented = ["uml", "acute", "grave", "circ", "tilde", "cedil", "ring", "slash"];
    match entity {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "shy" => Some('\u{ad}'),
        "szlig" => Some('ß'),
        "aelig" | "AElig" => Some('æ'),
        _ if accented.iter().any(|accent| entity.get(1..) == Some(accent)) => entity.chars().next(),
        _ => Some(' '),
    }
}

/// The first bytes of a base64 text, of either alphabet; white space is skipped, anything else ends it.
fn decoded(base64: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity((base64.len() / 4 * 3).min(MAX_ATTACHMENT_BYTES));
    let (mut bits, mut count) = (0u32, 0);
    for byte in base64.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => break,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
            if out.len() >= MAX_ATTACHMENT_BYTES {
                break;
            }
        }
    }
    out
}

/// A text of at most so many bytes, cut between characters.
pub(super) fn clipped(text: &str, bytes: usize) -> String {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}
