//! The grammar of label selectors in query strings: `key`, `!key`, `key=value`, `key in (a,b)`, joined by commas.

use super::SelectorError;
use super::label::{Operator, Requirement};
use crate::api::field::go_quote;
use crate::api::names;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Error,
    End,
    Identifier,
    Comma,
    Open,
    Close,
    Not,
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
}

/// Where a token stands: among values, `in` and `notin` are ordinary words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    Values,
    KeyAndOperator,
}

pub(super) struct Parser {
    tokens: Vec<(Token, String)>,
    next: usize,
}

const END: &str = "";

impl Parser {
    pub(super) fn new(text: &str) -> Self {
        Self { tokens: scan(text), next: 0 }
    }

    fn lookahead(&self, context: Context) -> (Token, &str) {
        let (token, literal) =
            self.tokens.get(self.next).map_or((Token::End, END), |(t, l)| (*t, l.as_str()));
        match token {
            Token::In | Token::NotIn if context == Context::Values => (Token::Identifier, literal),
            token => (token, literal),
        }
    }

    fn consume(&mut self, context: Context) -> (Token, String) {
        let (token, literal) = self.lookahead(context);
        let taken = (token, literal.to_owned());
        self.next += 1;
        taken
    }

    pub(super) fn requirements(mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut requirements = Vec::new();
        loop {
            match self.lookahead(Context::Values) {
                (Token::Identifier | Token::Not, _) => {}
                (Token::End, _) => return Ok(requirements),
                (_, literal) => {
                    return Err(SelectorError(format!(
                        "found '{literal}', expected: !, identifier, or 'end of string'"
                    )));
                }
            }
            let requirement = self.requirement();
            requirements
                .push(requirement.map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?);
            match self.consume(Context::Values) {
                (Token::End, _) => return Ok(requirements),
                (Token::Comma, _) => match self.lookahead(Context::Values) {
                    (Token::Identifier | Token::Not, _) => {}
                    (_, literal) => {
                        return Err(SelectorError(format!(
                            "found '{literal}', expected: identifier after ','"
                        )));
                    }
                },
                (_, literal) => {
                    return Err(SelectorError(format!(
                        "found '{literal}', expected: ',' or 'end of string'"
                    )));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let (key, absent) = self.key()?;
        if absent {
            return Requirement::new(&key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.lookahead(Context::Values).0, Token::End | Token::Comma) {
            return Requirement::new(&key, Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        Requirement::new(&key, operator, values)
    }

    fn key(&mut self) -> Result<(String, bool), SelectorError> {
        let (mut token, mut literal) = self.consume(Context::Values);
        let absent = token == Token::Not;
        if absent {
            (token, literal) = self.consume(Context::Values);
        }
        if token != Token::Identifier {
            return Err(SelectorError(format!("found '{literal}', expected: identifier")));
        }
        let errors = names::is_qualified_name(&literal);
        if !errors.is_empty() {
            let text = format!("<nil>: Invalid value: {}: {}", go_quote(&literal), errors.join("; "));
            return Err(SelectorError(text));
        }
        Ok((literal, absent))
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        match self.consume(Context::KeyAndOperator) {
            (Token::In, _) => Ok(Operator::In),
            (Token::NotIn, _) => Ok(Operator::NotIn),
            (Token::Equals, _) => Ok(Operator::Equals),
            (Token::DoubleEquals, _) => Ok(Operator::DoubleEquals),
            (Token::NotEquals, _) => Ok(Operator::NotEquals),
            (Token::Greater, _) => Ok(Operator::GreaterThan),
            (Token::Less, _) => Ok(Operator::LessThan),
            (_, literal) => {
                Err(SelectorError(format!("found '{literal}', expected: in, notin, =, ==, !=, gt, lt")))
            }
        }
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        let (token, literal) = self.consume(Context::Values);
        if token != Token::Open {
            return Err(SelectorError(format!("found '{literal}' expected: '('")));
        }
        match self.lookahead(Context::Values) {
            (Token::Identifier | Token::Comma, first) => {
                let first = first.to_owned();
                let values = self.identifiers()?;
                if self.consume(Context::Values).0 != Token::Close {
                    return Err(SelectorError(format!("found '{first}', expected: ')'")));
                }
                Ok(values)
            }
            (Token::Close, _) => {
                self.consume(Context::Values);
                Ok(vec![String::new()])
            }
            (_, literal) => {
                Err(SelectorError(format!("found '{literal}', expected: ',', ')' or identifier")))
            }
        }
    }

    /// Values between parentheses; a missing one before, between or after commas is the empty value.
    fn identifiers(&mut self) -> Result<Vec<String>, SelectorError> {
        let mut values = Vec::new();
        loop {
            match self.consume(Context::Values) {
                (Token::Identifier, literal) => {
                    values.push(literal);
                    match self.lookahead(Context::Values) {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, literal) => {
                            return Err(SelectorError(format!("found '{literal}', expected: ',' or ')'")));
                        }
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    match self.lookahead(Context::Values).0 {
                        Token::Close => {
                            values.push(String::new());
                            return Ok(values);
                        }
                        Token::Comma => {
                            self.consume(Context::Values);
                            values.push(String::new());
                        }
                        _ => {}
                    }
                }
                (_, literal) => {
                    return Err(SelectorError(format!("found '{literal}', expected: ',', or identifier")));
                }
            }
        }
    }

    fn exact_value(&mut self) -> Result<String, SelectorError> {
        if matches!(self.lookahead(Context::Values).0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.consume(Context::Values) {
            (Token::Identifier, literal) => Ok(literal),
            (_, literal) => Err(SelectorError(format!("found '{literal}', expected: identifier"))),
        }
    }
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn symbol(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        "!=" => Token::NotEquals,
        "(" => Token::Open,
        ">" => Token::Greater,
        "<" => Token::Less,
        _ => return None,
    })
}

/// Splits the text into words and the longest operators.
fn scan(text: &str) -> Vec<(Token, String)> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(is_space);
        let Some(first) = rest.chars().next() else { return tokens };
        let length = if is_symbol(first) {
            let longest = [2, 1].into_iter().find(|n| rest.get(..*n).is_some_and(|s| symbol(s).is_some()));
            longest.unwrap_or(first.len_utf8())
        } else {
            rest.find(|c| is_symbol(c) || is_space(c)).unwrap_or(rest.len())
        };
        let (word, after) = rest.split_at(length);
        rest = after;
        let token = match word {
            "in" => Token::In,
            "notin" => Token::NotIn,
            _ if is_symbol(first) => symbol(word).unwrap_or(Token::Error),
            _ => Token::Identifier,
        };
        tokens.push((token, word.to_owned()));
    }
}
