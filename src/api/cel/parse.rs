//! From tokens to expressions; macros are told apart here.

use super::Fault;
use super::ast::{Expr, Loop, Node};
use super::lexer::{Token, tokens};
use super::value::Value;

/// How deep expressions may nest.
const DEEPEST: usize = 100;

/// Words that are no names, beside the literals `true`, `false` and `null`.
pub(super) const RESERVED: [&str; 18] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
    "in",
];

/// Parses a whole source.
pub(super) fn parse(source: &str) -> Result<Expr, Fault> {
    let mut parser = Parser { tokens: tokens(source)?, next: 0, depth: 0 };
    let expr = parser.expr()?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.unexpected()),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(_, token)| token)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(0, |(at, _)| *at)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn eat(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Token::Symbol(own) if *own == symbol);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Fault> {
        if self.eat(symbol) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> Fault {
        let shown = match self.peek() {
            Token::End => "<EOF>".to_owned(),
            Token::Symbol(symbol) => (*symbol).to_owned(),
            Token::Ident(name) | Token::Quoted(name) => name.clone(),
            Token::String(text) => format!("{text:?}"),
            Token::Int(number) => number.to_string(),
            Token::Uint(number) => format!("{number}u"),
            Token::Double(number) => number.to_string(),
            Token::Bytes(_) => "bytes".to_owned(),
        };
        Fault { at: self.at(), message: format!("mismatched input '{shown}' expecting an expression") }
    }

    fn expr(&mut self) -> Result<Expr, Fault> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Fault { at: self.at(), message: "expression recursion limit exceeded".to_owned() });
        }
        let test = self.or()?;
        let expr = if self.eat("?") {
            let yes = self.or()?;
            self.expect(":")?;
            let no = self.expr()?;
            let at = test.at;
            Expr::new(at, Node::Choose { test: Box::new(test), yes: Box::new(yes), no: Box::new(no) })
        } else {
            test
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn or(&mut self) -> Result<Expr, Fault> {
        let mut left = self.and()?;
        loop {
            let at = self.at();
            if !self.eat("||") {
                return Ok(left);
            }
            left = Expr::new(at, Node::Or(Box::new(left), Box::new(self.and()?)));
        }
    }

    fn and(&mut self) -> Result<Expr, Fault> {
        let mut left = self.binary(0)?;
        loop {
            let at = self.at();
            if !self.eat("&&") {
                return Ok(left);
            }
            left = Expr::new(at, Node::And(Box::new(left), Box::new(self.binary(0)?)));
        }
    }

    fn operator(&self, level: usize) -> Option<&'static str> {
        const LEVELS: [&[&str]; 3] = [&["==", "!=", "<=", ">=", "<", ">"], &["+", "-"], &["*", "/", "%"]];
        match self.peek() {
            Token::Symbol(symbol) if LEVELS[level].contains(symbol) => Some(symbol),
            Token::Ident(name) if level == 0 && name == "in" => Some("in"),
            _ => None,
        }
    }

    fn binary(&mut self, level: usize) -> Result<Expr, Fault> {
        if level == 3 {
            return self.unary();
        }
        let mut left = self.binary(level + 1)?;
        while let Some(operator) = self.operator(level) {
            let at = self.at();
            self.next += 1;
            let right = self.binary(level + 1)?;
            left = Expr::new(at, Node::Binary { operator, left: Box::new(left), right: Box::new(right) });
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, Fault> {
        let at = self.at();
        if self.eat("!") {
            self.deeper()?;
            let node = Node::Not(Box::new(self.unary()?));
            self.depth -= 1;
            return Ok(Expr::new(at, node));
        }
        if self.eat("-") {
            match *self.peek() {
                Token::Int(number) => {
                    self.next += 1;
                    let value = Value::Int(number.wrapping_neg());
                    return self.postfix(Expr::new(at, Node::Literal(value)));
                }
                Token::Double(number) => {
                    self.next += 1;
                    return self.postfix(Expr::new(at, Node::Literal(Value::Double(-number))));
                }
                _ => {}
            }
            self.deeper()?;
            let node = Node::Negate(Box::new(self.unary()?));
            self.depth -= 1;
            return Ok(Expr::new(at, node));
        }
        let primary = self.primary()?;
        self.postfix(primary)
    }

    fn deeper(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Fault { at: self.at(), message: "expression recursion limit exceeded".to_owned() });
        }
        Ok(())
    }

    fn postfix(&mut self, mut of: Expr) -> Result<Expr, Fault> {
        loop {
            let at = self.at();
            if self.eat(".?") {
                let field = self.field()?;
                of = Expr::new(at, Node::Select { of: Box::new(of), field, optional: true });
            } else if self.eat(".") {
                let field = self.field()?;
                if self.eat("(") {
                    let args = self.args(")")?;
                    of = member_call(at, of, field, args)?;
                } else {
                    of = Expr::new(at, Node::Select { of: Box::new(of), field, optional: false });
                }
            } else if self.eat("[?") || self.eat("[") {
                let optional = matches!(self.tokens[self.next - 1].1, Token::Symbol("[?"));
                let index = Box::new(self.expr()?);
                self.expect("]")?;
                of = Expr::new(at, Node::Index { of: Box::new(of), index, optional });
            } else if let Some(name) = type_name(&of)
                && self.eat("{")
            {
                let fields = self.fields()?;
                of = Expr::new(of.at, Node::Struct { name, fields });
            } else {
                return Ok(of);
            }
        }
    }

    /// The fields of a literal object, up to its end.
    fn fields(&mut self) -> Result<Vec<(String, Expr, bool)>, Fault> {
        let mut fields = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let name = self.field()?;
            self.expect(":")?;
            fields.push((name, self.expr()?, optional));
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(fields)
    }

    fn field(&mut self) -> Result<String, Fault> {
        match self.peek() {
            Token::Ident(name) if name != "in" => {
                let name = name.clone();
                self.next += 1;
                Ok(name)
            }
            Token::Quoted(name) => {
                let name = name.clone();
                self.next += 1;
                Ok(name)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn args(&mut self, end: &str) -> Result<Vec<Expr>, Fault> {
        let mut args = Vec::new();
        while !self.eat(end) {
            args.push(self.expr()?);
            if !self.eat(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(args)
    }

    fn primary(&mut self) -> Result<Expr, Fault> {
        let at = self.at();
        let literal = |value| Ok(Expr::new(at, Node::Literal(value)));
        match self.take() {
            Token::Int(i64::MIN) => Err(Fault { at, message: "invalid int literal".to_owned() }),
            Token::Int(number) => literal(Value::Int(number)),
            Token::Uint(number) => literal(Value::Uint(number)),
            Token::Double(number) => literal(Value::Double(number)),
            Token::String(text) => literal(Value::String(text.into())),
            Token::Bytes(bytes) => literal(Value::Bytes(bytes.into())),
            Token::Symbol("(") => {
                let inner = self.expr()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Symbol("[") => self.list(at),
            Token::Symbol("[?") => {
                // A list whose first item is optional.
                let item = (self.expr()?, true);
                if !self.eat(",") {
                    self.expect("]")?;
                    return Ok(Expr::new(at, Node::List(vec![item])));
                }
                let mut list = self.list(at)?;
                if let Node::List(items) = &mut list.node {
                    items.insert(0, item);
                }
                Ok(list)
            }
            Token::Symbol("{") => self.map(at),
            Token::Symbol(".") => {
                let name = self.field()?;
                self.named(at, name)
            }
            Token::Ident(name) => match name.as_str() {
                "true" => literal(Value::Bool(true)),
                "false" => literal(Value::Bool(false)),
                "null" => literal(Value::Null),
                name if RESERVED.contains(&name) => {
                    Err(Fault { at, message: format!("reserved identifier: {name}") })
                }
                _ => self.named(at, name),
            },
            _ => {
                self.next -= 1;
                Err(self.unexpected())
            }
        }
    }

    fn named(&mut self, at: usize, name: String) -> Result<Expr, Fault> {
        if !self.eat("(") {
            return Ok(Expr::new(at, Node::Ident(name)));
        }
        let mut args = self.args(")")?;
        if name == "has" {
            return match args.pop().map(|arg| (args.is_empty(), arg.node)) {
                Some((true, Node::Select { of, field, optional: false })) => {
                    Ok(Expr::new(at, Node::Has { of, field }))
                }
                _ => Err(Fault { at, message: "invalid argument to has() macro".to_owned() }),
            };
        }
        Ok(Expr::new(at, Node::Call { of: None, function: name, args }))
    }

    fn list(&mut self, at: usize) -> Result<Expr, Fault> {
        let mut items = Vec::new();
        while !self.eat("]") {
            let optional = self.eat("?");
            items.push((self.expr()?, optional));
            if !self.eat(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(Expr::new(at, Node::List(items)))
    }

    fn map(&mut self, at: usize) -> Result<Expr, Fault> {
        let mut entries = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let key = self.expr()?;
            self.expect(":")?;
            entries.push((key, self.expr()?, optional));
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr::new(at, Node::Map(entries)))
    }
}

/// A call on a value: a macro, or a function.
fn member_call(at: usize, of: Expr, function: String, mut args: Vec<Expr>) -> Result<Expr, Fault> {
    let name_of = |expr: &Expr| match &expr.node {
        Node::Ident(name) => Some(name.clone()),
        _ => None,
    };
    let kind = match (function.as_str(), args.len()) {
        ("all", 2 | 3) => Some(Loop::All),
        ("exists", 2 | 3) => Some(Loop::Exists),
        ("exists_one" | "existsOne", 2 | 3) => Some(Loop::ExistsOne),
        ("filter", 2) => Some(Loop::Filter),
        ("map", 2) => Some(Loop::Map),
        ("map", 3) => Some(Loop::MapSome),
        ("sortBy", 2) => Some(Loop::SortBy),
        ("transformList", 3 | 4) => Some(Loop::TransformList),
        ("transformMap", 3 | 4) => Some(Loop::TransformMap),
        _ => None,
    };
    if let Some(kind) = kind {
        let two = match kind {
            Loop::TransformList | Loop::TransformMap => true,
            Loop::MapSome => false,
            _ => args.len() == 3,
        };
        let bodies = args.split_off(1 + usize::from(two));
        let names: Option<Vec<String>> = args.iter().map(name_of).collect();
        let Some(names) = names else {
            let at = args.first().map_or(at, |arg| arg.at);
            return Err(Fault { at, message: "argument must be a simple name".to_owned() });
        };
        return Ok(Expr::new(at, Node::Loop { kind, over: Box::new(of), names, bodies }));
    }
    let is_cel = matches!(&of.node, Node::Ident(name) if name == "cel");
    match (function.as_str(), args.len()) {
        ("bind", 3) if is_cel => {
            let (body, value, name) = (args.pop(), args.pop(), args.pop().as_ref().and_then(name_of));
            match (name, value, body) {
                (Some(name), Some(value), Some(body)) => {
                    Ok(Expr::new(at, Node::Bind { name, value: Box::new(value), body: Box::new(body) }))
                }
                _ => Err(Fault {
                    at,
                    message: "cel.bind() variable names must be simple identifiers".to_owned(),
                }),
            }
        }
        ("optMap" | "optFlatMap", 2) => {
            let flat = function == "optFlatMap";
            match (args.pop(), args.pop().as_ref().and_then(name_of)) {
                (Some(body), Some(name)) => {
                    Ok(Expr::new(at, Node::OptMap { of: Box::new(of), name, body: Box::new(body), flat }))
                }
                _ => Err(Fault {
                    at,
                    message: format!("{function}() variable name must be a simple identifier"),
                }),
            }
        }
        _ => Ok(Expr::new(at, Node::Call { of: Some(Box::new(of)), function, args })),
    }
}

/// The dotted name that an expression is, if it is nothing else.
fn type_name(expr: &Expr) -> Option<String> {
    match &expr.node {
        Node::Ident(name) => Some(name.clone()),
        Node::Select { of, field, optional: false } => Some(format!("{}.{field}", type_name(of)?)),
        _ => None,
    }
}
