//! Expressions.

use super::value::Value;

/// An expression and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Expr {
    pub at: usize,
    pub node: Node,
}

/// A macro over the items of a list or the keys of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loop {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
    /// `map` with a filter before it.
    MapSome,
    SortBy,
    TransformList,
    TransformMap,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Literal(Value),
    Ident(String),
    /// `of.field`, or `of.?field`.
    Select {
        of: Box<Expr>,
        field: String,
        optional: bool,
    },
    /// `has(of.field)`.
    Has {
        of: Box<Expr>,
        field: String,
    },
    Index {
        of: Box<Expr>,
        index: Box<Expr>,
        optional: bool,
    },
    Call {
        of: Option<Box<Expr>>,
        function: String,
        args: Vec<Expr>,
    },
    /// Items; those marked are left out when they are none.
    List(Vec<(Expr, bool)>),
    Map(Vec<(Expr, Expr, bool)>),
    /// `Name{field: value}`.
    Struct {
        name: String,
        fields: Vec<(String, Expr, bool)>,
    },
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Binary {
        operator: &'static str,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Choose {
        test: Box<Expr>,
        yes: Box<Expr>,
        no: Box<Expr>,
    },
    Loop {
        kind: Loop,
        over: Box<Expr>,
        names: Vec<String>,
        bodies: Vec<Expr>,
    },
    /// `cel.bind(name, value, body)`.
    Bind {
        name: String,
        value: Box<Expr>,
        body: Box<Expr>,
    },
    /// `of.optMap(name, body)`; flat when the body is itself optional.
    OptMap {
        of: Box<Expr>,
        name: String,
        body: Box<Expr>,
        flat: bool,
    },
}

impl Expr {
    pub(super) fn new(at: usize, node: Node) -> Self {
        Self { at, node }
    }

    /// Whether a free variable of that name occurs; a local name that hides it counts too.
    pub(super) fn uses(&self, name: &str) -> bool {
        let any = |list: &[Expr]| list.iter().any(|expr| expr.uses(name));
        match &self.node {
            Node::Literal(_) => false,
            Node::Ident(own) => own == name,
            Node::Select { of, .. } | Node::Has { of, .. } | Node::Not(of) | Node::Negate(of) => {
                of.uses(name)
            }
            Node::Index { of, index, .. } => of.uses(name) || index.uses(name),
            Node::Call { of, args, .. } => of.as_ref().is_some_and(|of| of.uses(name)) || any(args),
            Node::List(items) => items.iter().any(|(item, _)| item.uses(name)),
            Node::Map(entries) => entries.iter().any(|(key, value, _)| key.uses(name) || value.uses(name)),
            Node::Struct { fields, .. } => fields.iter().any(|(_, value, _)| value.uses(name)),
            Node::Binary { left, right, .. } | Node::And(left, right) | Node::Or(left, right) => {
                left.uses(name) || right.uses(name)
            }
            Node::Choose { test, yes, no } => test.uses(name) || yes.uses(name) || no.uses(name),
            Node::Loop { over, bodies, .. } => over.uses(name) || any(bodies),
            Node::Bind { value, body, .. } => value.uses(name) || body.uses(name),
            Node::OptMap { of, body, .. } => of.uses(name) || body.uses(name),
        }
    }
}
