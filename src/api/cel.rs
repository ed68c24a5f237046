//! The Common Expression Language, with the libraries that Kubernetes adds: what validation rules, admission policies
//! and match conditions are written in.
//!
//! [`Program::compile`] parses and checks an expression against the variables it may use; [`Program::run`] evaluates
//! it. Messages are those of the Go implementation, which users see in compile errors and denied requests. The
//! language is small enough that it is here in full: a parser, a checker that knows schemas, and an interpreter that
//! counts its steps.

mod ast;
mod check;
mod convert;
mod eval;
mod functions;
mod kubernetes;
mod lexer;
mod loops;
mod operators;
mod parse;
mod signatures;
mod strings;
pub mod types;
pub mod value;

use std::sync::Arc;

pub use convert::{from_json, to_json};
pub use eval::{Budget, Scope, Source};
pub use types::Type;
pub use value::Value;

use ast::Expr;

/// Why an expression does not compile; `Display` is the whole report, with the place in the source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CompileError(String);

/// A failed evaluation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The expression has no value for these variables.
    #[error("{0}")]
    Failed(String),
    /// The expression takes too many steps.
    #[error("operation cancelled: actual cost limit exceeded")]
    TooExpensive,
}

impl EvalError {
    fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }
}

/// The variables that an expression may use, with their types.
#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: Vec<(String, Type)>,
}

impl Env {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a variable.
    #[must_use]
    pub fn with(mut self, name: &str, kind: Type) -> Self {
        self.variables.push((name.to_owned(), kind));
        self
    }

    fn lookup(&self, name: &str) -> Option<&Type> {
        self.variables.iter().rev().find(|(known, _)| known == name).map(|(_, kind)| kind)
    }
}

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Program {
    expr: Arc<Expr>,
    kind: Type,
}

impl Program {
    /// Parses and checks an expression.
    ///
    /// # Errors
    /// The text is no expression, names what is not there, or applies a function to what it is not for.
    pub fn compile(source: &str, env: &Env) -> Result<Self, CompileError> {
        let expr = parse::parse(source).map_err(|fault| CompileError(fault.report(source, true)))?;
        let kind = check::check(&expr, env).map_err(|fault| CompileError(fault.report(source, false)))?;
        Ok(Self { expr: Arc::new(expr), kind })
    }

    /// The type of the expression's value.
    pub fn kind(&self) -> &Type {
        &self.kind
    }

    /// Whether the expression uses a variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.expr.uses(variable)
    }

    /// Evaluates the expression.
    ///
    /// # Errors
    /// The expression fails for these variables, or the budget is used up.
    pub fn run(&self, variables: &Scope<'_>, budget: &mut Budget) -> Result<Value, EvalError> {
        eval::eval(&self.expr, variables, budget)
    }
}

/// A fault at a place in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    at: usize,
    message: String,
}

impl Fault {
    /// The fault with the line it is on and a mark below it.
    fn report(&self, source: &str, syntax: bool) -> String {
        let (mut line, mut begin) = (1, 0);
        for (at, c) in source.char_indices() {
            if at >= self.at {
                break;
            }
            if c == '\n' {
                line += 1;
                begin = at + 1;
            }
        }
        let text = source[begin..].split('\n').next().unwrap_or_default();
        let column = source[begin..self.at.clamp(begin, source.len())].chars().count();
        let syntax = if syntax { "Syntax error: " } else { "" };
        format!(
            "ERROR: <input>:{line}:{}: {syntax}{}\n | {text}\n | {}^",
            column + 1,
            self.message,
            ".".repeat(column)
        )
    }
}

#[cfg(test)]
mod tests;
