//! From text to tokens.

use super::Fault;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Ident(String),
    /// A field name between backquotes.
    Quoted(String),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
    Symbol(&'static str),
    End,
}

const SYMBOLS: [&str; 28] = [
    "&&", "||", "==", "!=", "<=", ">=", ".?", "[?", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".",
    ",", "(", ")", "[", "]", "{", "}", "=", ";",
];

/// Splits the source; every token with where it begins.
pub(super) fn tokens(source: &str) -> Result<Vec<(usize, Token)>, Fault> {
    let mut lexer = Lexer { source, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_space();
        let at = lexer.at;
        let token = lexer.token()?;
        let end = token == Token::End;
        tokens.push((at, token));
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn fault<T>(&self, message: impl Into<String>) -> Result<T, Fault> {
        Err(Fault { at: self.at, message: message.into() })
    }

    fn skip_space(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            let skipped = rest.len() - trimmed.len();
            self.at += skipped;
            match self.rest().strip_prefix("//") {
                Some(comment) => self.at += 2 + comment.find('\n').unwrap_or(comment.len()),
                None => return,
            }
        }
    }

    fn token(&mut self) -> Result<Token, Fault> {
        let Some(first) = self.rest().chars().next() else { return Ok(Token::End) };
        if let Some(token) = self.text()? {
            return Ok(token);
        }
        if first == '`' {
            let inside = &self.rest()[1..];
            let Some(end) = inside.find('`') else { return self.fault("token recognition error at: '`'") };
            let name = inside[..end].to_owned();
            self.at += end + 2;
            return Ok(Token::Quoted(name));
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let rest = self.rest();
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let name = rest[..end].to_owned();
            self.at += end;
            return Ok(Token::Ident(name));
        }
        let fraction = first == '.' && self.rest()[1..].starts_with(|c: char| c.is_ascii_digit());
        if first.is_ascii_digit() || fraction {
            return self.number();
        }
        for symbol in SYMBOLS {
            if self.rest().starts_with(symbol) {
                self.at += symbol.len();
                return Ok(Token::Symbol(symbol));
            }
        }
        self.fault(format!("token recognition error at: '{first}'"))
    }

    fn number(&mut self) -> Result<Token, Fault> {
        let rest = self.rest();
        if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let end = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
            let digits = hex[..end].to_owned();
            let unsigned = hex[end..].starts_with(['u', 'U']);
            self.at += 2 + end + usize::from(unsigned);
            return match (unsigned, u64::from_str_radix(&digits, 16)) {
                (true, Ok(number)) => Ok(Token::Uint(number)),
                (false, Ok(number)) if i64::try_from(number).is_ok() => {
                    Ok(Token::Int(i64::try_from(number).unwrap_or_default()))
                }
                _ => self.fault("invalid int literal"),
            };
        }
        let mut end = 0;
        let bytes = rest.as_bytes();
        let mut double = false;
        while end < bytes.len() {
            match bytes[end] {
                b'0'..=b'9' => {}
                b'.' if !double && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) => double = true,
                b'e' | b'E' => {
                    let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
                    if !bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
                        break;
                    }
                    double = true;
                    end += sign;
                }
                _ => break,
            }
            end += 1;
        }
        let text = rest[..end].to_owned();
        let unsigned = !double && rest[end..].starts_with(['u', 'U']);
        self.at += end + usize::from(unsigned);
        let parsed = if double {
            text.parse().ok().map(Token::Double)
        } else if unsigned {
            text.parse().ok().map(Token::Uint)
        } else if text == "9223372036854775808" {
            // Only its negation is a number; the parser sees to that.
            Some(Token::Int(i64::MIN))
        } else {
            text.parse().ok().map(Token::Int)
        };
        match parsed {
            Some(token) => Ok(token),
            None => self.fault("invalid int literal"),
        }
    }

    /// A string or bytes literal, if one begins here.
    fn text(&mut self) -> Result<Option<Token>, Fault> {
        let rest = self.rest();
        let prefix = rest.find(['"', '\'']).filter(|at| *at <= 2).unwrap_or(3);
        if prefix == 3 || !rest[..prefix].chars().all(|c| matches!(c, 'r' | 'R' | 'b' | 'B')) {
            return Ok(None);
        }
        let (raw, bytes) = (rest[..prefix].contains(['r', 'R']), rest[..prefix].contains(['b', 'B']));
        let body = &rest[prefix..];
        let quote = &body[..1];
        let triple = quote.repeat(3);
        let close = if body.starts_with(&triple) { triple } else { quote.to_owned() };
        let begin = self.at + prefix + close.len();
        let mut end = begin;
        loop {
            let Some(c) = self.source[end..].chars().next() else { return self.fault("unterminated string") };
            if self.source[end..].starts_with(&close) {
                break;
            }
            if c == '\n' && close.len() == 1 {
                return self.fault("unterminated string");
            }
            let escaped = c == '\\' && !raw;
            end += c.len_utf8();
            if escaped {
                end += self.source[end..].chars().next().map_or(0, char::len_utf8);
            }
        }
        let inside = &self.source[begin..end];
        let decoded = if raw { Ok(inside.as_bytes().to_vec()) } else { unescape(inside, bytes) };
        let Ok(decoded) = decoded else { return self.fault("invalid escape sequence") };
        self.at = end + close.len();
        if bytes {
            return Ok(Some(Token::Bytes(decoded)));
        }
        Ok(Some(Token::String(String::from_utf8_lossy(&decoded).into_owned())))
    }
}

/// Replaces escapes by what they stand for.
fn unescape(text: &str, bytes: bool) -> Result<Vec<u8>, ()> {
    let chars: Vec<char> = text.chars().collect();
    let (mut out, mut at, mut buffer) = (Vec::new(), 0, [0; 4]);
    while at < chars.len() {
        let c = chars[at];
        at += 1;
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
            continue;
        }
        let kind = *chars.get(at).ok_or(())?;
        at += 1;
        let (digits, radix) = match kind {
            'x' | 'X' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='3' => (3, 8),
            _ => (0, 0),
        };
        let number = if digits > 0 {
            let from = if radix == 8 { at - 1 } else { at };
            let text: String = chars.get(from..from + digits).ok_or(())?.iter().collect();
            at = from + digits;
            u32::from_str_radix(&text, radix).map_err(|_| ())?
        } else {
            match kind {
                'a' => 7,
                'b' => 8,
                'f' => 12,
                'n' => 10,
                'r' => 13,
                't' => 9,
                'v' => 11,
                '\\' | '?' | '"' | '\'' | '`' => u32::from(kind),
                _ => return Err(()),
            }
        };
        if bytes && digits > 0 && !matches!(kind, 'u' | 'U') {
            out.push(u8::try_from(number).map_err(|_| ())?);
        } else {
            out.extend_from_slice(char::from_u32(number).ok_or(())?.encode_utf8(&mut buffer).as_bytes());
        }
    }
    Ok(out)
}
