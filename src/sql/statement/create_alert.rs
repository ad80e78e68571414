//! `CREATE ALERT … ON relation WHERE predicate …`: watches a relation, and tells when rows match.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use sqlparser::ast::Expr;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::{Command, Spec};
use crate::alert::rule::{NoData, Rule};
use crate::alert::{Definition, Scores, Telling};
use crate::catalog::{ObjectKind, Origin, quoted};
use crate::error::{Error, Kind, Result};
use crate::rollup::versions::FINAL;
use crate::sql::parser::{
    folded, interval, option_list, option_value, parser as new_parser, relation_name, syntax, words,
};
use crate::sql::scores::{ORDER, hoist};
use crate::sql::{Outcome, Session, relations_read};
use crate::time::Micros;

pub static SPEC: Spec = Spec {
    name: "CREATE ALERT",
    syntax: "CREATE ALERT [IF NOT EXISTS] name ON relation | view_final | (query) [WHERE predicate] [KEY (column, …)] [FOR interval] [KEEP FIRING FOR interval] [ON NO DATA FIRE | RESOLVE | KEEP [AFTER interval]] [SEVERITY 'word'] [LABELS (name = 'text', …)] [ANNOTATIONS (name = 'text with {{column}}', …)] [GROUP BY (column, …) [WAIT interval]] [REPEAT interval] [LIMIT n PER interval] [EVERY interval] [NOTIFY notifier, … [ON RESOLVE]]",
    summary: "watches a stream, a view or a query, and tells when rows match; EVERY runs a query over plain tables now and then",
    parse,
};

/// How long no data may come, unless AFTER says so.
const NO_DATA: Micros = 300_000_000;

/// As parsed.
#[derive(Debug, Clone)]
pub struct CreateAlert {
    name: String,
    from: From,
    predicate: Option<Expr>,
    clauses: Clauses,
    if_not_exists: bool,
    text: String,
}

#[derive(Debug, Clone)]
enum From {
    Relation(String),
    Query(String),
}

#[derive(Debug, Clone, Default)]
struct Clauses {
    key: Vec<String>,
    rule: Rule,
    keeps: bool,
    severity: Option<String>,
    labels: Vec<(String, String)>,
    annotations: Vec<(String, String)>,
    telling: Telling,
    every: Option<Micros>,
}

fn parse(parser: &mut Parser<'_>, text: &str) -> Result<Option<Arc<dyn Command>>> {
    Ok(parse_alert(parser, text)?.map(|alert| Arc::new(alert) as _))
}

/// The statement itself, for those who need its parts.
pub fn parse_alert(parser: &mut Parser<'_>, text: &str) -> Result<Option<CreateAlert>> {
    if !words(parser, &["CREATE", "ALERT"]) {
        return Ok(None);
    }
    let if_not_exists = words(parser, &["IF", "NOT", "EXISTS"]);
    let name = relation_name(parser)?;
    Ok(Some(parse_rest(parser, name, if_not_exists, text)?))
}

/// What stands behind the name.
pub fn parse_rest(parser: &mut Parser<'_>, name: String, if_not_exists: bool, text: &str) -> Result<CreateAlert> {
    if !words(parser, &["ON"]) {
        return Err(Error::new(Kind::Syntax, "an alert needs ON and what it watches")
            .with_hint(format!("The form is: {}", SPEC.syntax)));
    }
    let from = if parser.consume_token(&Token::LParen) {
        let query = parser.parse_query().map_err(|e| syntax(&e))?;
        parser.expect_token(&Token::RParen).map_err(|e| syntax(&e))?;
        From::Query(query.to_string())
    } else {
        From::Relation(relation_name(parser)?)
    };
    let predicate = match words(parser, &["WHERE"]) {
        true => Some(parser.parse_expr().map_err(|e| syntax(&e))?),
        false => None,
    };
    let clauses = parse_clauses(parser)?;
    Ok(CreateAlert { name, from, predicate, clauses, if_not_exists, text: text.to_string() })
}

/// `(column, …)`.
fn columns(parser: &mut Parser<'_>) -> Result<Vec<String>> {
    parser.expect_token(&Token::LParen).map_err(|e| syntax(&e))?;
    if parser.consume_token(&Token::RParen) {
        return Ok(Vec::new());
    }
    let columns = parser.parse_comma_separated(Parser::parse_identifier).map_err(|e| syntax(&e))?;
    parser.expect_token(&Token::RParen).map_err(|e| syntax(&e))?;
    Ok(columns.iter().map(folded).collect())
}

fn positive(parser: &mut Parser<'_>, clause: &str) -> Result<Micros> {
    match interval(parser)? {
        micros if micros > 0 => Ok(micros),
        _ => Err(Error::new(Kind::InvalidParameter, format!("{clause} takes an interval above 0"))),
    }
}

/// Clauses in any order, each once.
fn parse_clauses(parser: &mut Parser<'_>) -> Result<Clauses> {
    let mut clauses = Clauses::default();
    let mut seen: BTreeSet<&'static str> = BTreeSet::new();
    let forms: [(&'static str, &[&str]); 12] = [
        ("KEY", &["KEY"]),
        ("FOR", &["FOR"]),
        ("KEEP FIRING FOR", &["KEEP", "FIRING", "FOR"]),
        ("ON NO DATA", &["ON", "NO", "DATA"]),
        ("SEVERITY", &["SEVERITY"]),
        ("LABELS", &["LABELS"]),
        ("ANNOTATIONS", &["ANNOTATIONS"]),
        ("GROUP BY", &["GROUP", "BY"]),
        ("REPEAT", &["REPEAT"]),
        ("LIMIT", &["LIMIT"]),
        ("EVERY", &["EVERY"]),
        ("NOTIFY", &["NOTIFY"]),
    ];
    while let Some((clause, _)) = forms.iter().find(|(_, form)| words(parser, form)) {
        if !seen.insert(*clause) {
            return Err(Error::new(Kind::Syntax, format!("{clause} is given twice")));
        }
        let (rule, telling) = (&mut clauses.rule, &mut clauses.telling);
        match *clause {
            "KEY" => clauses.key = columns(parser)?,
            "FOR" => rule.hold = interval(parser)?.max(0),
            "KEEP FIRING FOR" => (rule.keep, clauses.keeps) = (interval(parser)?.max(0), true),
            "ON NO DATA" => {
                let actions = [("FIRE", NoData::Fire), ("RESOLVE", NoData::Resolve), ("KEEP", NoData::Keep)];
                let Some((_, action)) = actions.into_iter().find(|(word, _)| words(parser, &[word])) else {
                    return Err(Error::new(Kind::Syntax, "ON NO DATA takes FIRE, RESOLVE or KEEP"));
                };
                let after = if words(parser, &["AFTER"]) { positive(parser, "AFTER")? } else { NO_DATA };
                rule.no_data = Some((action, after));
            }
            "SEVERITY" => clauses.severity = Some(option_value(parser)?),
            "LABELS" => clauses.labels = option_list(parser)?,
            "ANNOTATIONS" => clauses.annotations = option_list(parser)?,
            "GROUP BY" => {
                telling.group = Some(columns(parser)?);
                if words(parser, &["WAIT"]) {
                    telling.wait = interval(parser)?.max(0);
                }
            }
            "REPEAT" => rule.repeat = Some(positive(parser, "REPEAT")?),
            "LIMIT" => {
                let given = option_value(parser)?;
                let count = given.parse::<u64>().ok().filter(|count| *count > 0).ok_or_else(|| {
                    Error::new(Kind::InvalidParameter, format!("LIMIT takes a number above 0, not \"{given}\""))
                })?;
                if !words(parser, &["PER"]) {
                    return Err(Error::new(Kind::Syntax, "LIMIT needs PER and an interval")
                        .with_hint("Write it like LIMIT 10 PER INTERVAL '1 hour'."));
                }
                telling.limit = Some((count, positive(parser, "PER")?));
            }
            "EVERY" => clauses.every = Some(positive(parser, "EVERY")?),
            _ => {
                let names = parser.parse_comma_separated(Parser::parse_identifier).map_err(|e| syntax(&e))?;
                for name in names.iter().map(folded) {
                    if !telling.notify.contains(&name) {
                        telling.notify.push(name);
                    }
                }
                telling.on_resolve = words(parser, &["ON", "RESOLVE"]);
            }
        }
    }
    Ok(clauses)
}

impl Command for CreateAlert {
    fn run<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(self.outcome(session))
    }
}

impl CreateAlert {
    async fn outcome(&self, session: &Session) -> Result<Outcome> {
        let (name, engine) = (&self.name, session.engine());
        let exists = matches!(session.existing(name), Some((ObjectKind::Alert, _)));
        if self.if_not_exists && exists && !engine.is_restoring() {
            return Ok(Outcome::noticed("CREATE ALERT", format!("alert \"{name}\" already exists, skipping")));
        }
        let definition = self.checked(session)?;
        session.must_use(&definition.telling.notify)?;
        let actor = session.actor();
        engine.create_alert(definition, Origin { sql: &self.text, actor: &actor }).await?;
        let nobody = self.clauses.telling.notify.is_empty();
        Ok(match nobody {
            true => Outcome::noticed(
                "CREATE ALERT",
                "nobody is told of it, as there is no NOTIFY; logweir.alerts shows its state".into(),
            ),
            false => Outcome::done("CREATE ALERT"),
        })
    }

    /// What the engine is to watch, if the session may read all that it reads.
    pub fn checked(&self, session: &Session) -> Result<Definition> {
        let definition = self.definition(session)?;
        let predicate = definition.predicate.iter().map(|(_, query)| query.as_str());
        let plain = definition.scores.iter().map(|scores| scores.plain.as_str());
        [definition.query.as_str()]
            .into_iter()
            .chain(predicate)
            .chain(plain)
            .try_for_each(|q| session.check_query(q))?;
        Ok(definition)
    }

    fn definition(&self, session: &Session) -> Result<Definition> {
        // What stands behind FROM, to be read and to be named in the predicate.
        let (from, mut query, source, alias, closed) = match &self.from {
            From::Query(query) => (format!("({query})"), query.clone(), format!("({query}) AS q"), "q".into(), false),
            From::Relation(name) => {
                let view = name.strip_suffix(FINAL).filter(|view| session.engine().view(view).is_some());
                let view = view.filter(|_| session.existing(name).is_none());
                let alias = quoted(view.unwrap_or(name));
                let source = match view {
                    Some(_) => format!("{alias} WHERE {FINAL}"),
                    None => alias.clone(),
                };
                (name.clone(), format!("SELECT * FROM {source}"), source, alias, view.is_some())
            }
        };
        let reads = relations_read(&*new_parser(&query)?.parse_query().map_err(|e| syntax(&e))?);
        let (mut predicate, mut scores) = (None, None);
        if let Some(written) = &self.predicate {
            let mut expr = written.clone();
            if let Some(hoisted) = hoist(&source, &mut expr, &self.clauses.key)? {
                let plain = std::mem::replace(&mut query, hoisted.query);
                scores = Some(Scores { call: hoisted.call, order: ORDER, plain });
            }
            predicate = Some((written.to_string(), format!("SELECT ({expr}) FROM ({query}) AS {alias}")));
        } else if matches!(self.from, From::Relation(_)) {
            return Err(Error::new(Kind::Syntax, "an alert on a relation needs WHERE and a predicate")
                .with_hint("Only of a query every row counts: ON (SELECT … WHERE …)."));
        }
        let clauses = self.clauses.clone();
        Ok(Definition {
            name: self.name.clone(),
            from,
            query,
            reads,
            closed,
            predicate,
            scores,
            key: clauses.key,
            rule: clauses.rule,
            keeps: clauses.keeps,
            severity: clauses.severity.unwrap_or_else(|| "warning".to_string()),
            labels: clauses.labels,
            annotations: clauses.annotations,
            telling: clauses.telling,
            every: clauses.every,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<CreateAlert> {
        let mut parser = new_parser(text)?;
        let alert = parse_alert(&mut parser, text)?.expect("it is one");
        assert_eq!(parser.peek_token_ref().token, Token::EOF, "{text}");
        Ok(alert)
    }

    #[test]
    fn all_clauses_are_read_in_any_order() {
        let alert = parsed(
            "CREATE ALERT high_5xx ON error_rate WHERE error_rate > 0.05 AND requests > 100
             KEY (path, \"Host\") FOR INTERVAL '1 minute' KEEP FIRING FOR '2 minutes' ON NO DATA FIRE AFTER INTERVAL '10 minutes'
             SEVERITY 'critical' LABELS (team = 'web') ANNOTATIONS (summary = '{{path}} fails') GROUP BY (team) WAIT '30 seconds'
             REPEAT INTERVAL '4 hours' LIMIT 10 PER INTERVAL '1 hour' NOTIFY ops, chat ON RESOLVE",
        )
        .unwrap();
        assert_eq!(
            alert.predicate.as_ref().map(Expr::to_string).as_deref(),
            Some("error_rate > 0.05 AND requests > 100")
        );
        let clauses = &alert.clauses;
        let second = 1_000_000;
        let rule = Rule {
            hold: 60 * second,
            keep: 120 * second,
            no_data: Some((NoData::Fire, 600 * second)),
            repeat: Some(14_400 * second),
        };
        assert_eq!((clauses.rule, clauses.key.join(" ")), (rule, "path Host".to_string()));
        let telling = &clauses.telling;
        assert_eq!(
            (telling.notify.join(" "), telling.on_resolve, telling.wait),
            ("ops chat".into(), true, 30 * second)
        );
        assert_eq!(telling.limit, Some((10, 3600 * second)));
        let other = parsed("CREATE ALERT a ON (SELECT 1 AS x) NOTIFY n EVERY '5s' ON NO DATA KEEP FOR '1s'").unwrap();
        assert_eq!(other.clauses.every, Some(5 * second));
        assert_eq!(other.clauses.rule.no_data, Some((NoData::Keep, NO_DATA)));
        assert!(!other.clauses.telling.on_resolve);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, expected) in [
            ("CREATE ALERT a WHERE x > 1", "needs ON"),
            ("CREATE ALERT a ON v WHERE x > 1 FOR '1s' FOR '2s'", "FOR is given twice"),
            ("CREATE ALERT a ON v WHERE x > 1 LIMIT 0 PER '1s'", "above 0"),
            ("CREATE ALERT a ON v WHERE x > 1 LIMIT 5", "PER"),
            ("CREATE ALERT a ON v WHERE x > 1 ON NO DATA PANIC", "FIRE, RESOLVE or KEEP"),
            ("CREATE ALERT a ON v WHERE x > 1 REPEAT '0s'", "above 0"),
            ("CREATE ALERT a ON v WHERE x > 1 FOR 'soon'", "not a duration"),
        ] {
            let err = parsed(text).unwrap_err();
            assert!(err.message().contains(expected), "{err}");
        }
    }
}
