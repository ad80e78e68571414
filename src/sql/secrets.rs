//! Takes secrets out of a statement before it is shown: the values of secret options, and passwords of roles, become `***`.
//!
//! Works on the tokens, for statements of any kind, also those that could not be parsed. An option is known by its name: one
//! that is secret somewhere is secret everywhere.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::parser::{Statement, byte_of, line_starts};
use crate::notify::NOTIFIERS;
use crate::options::OptionKind;
use crate::secret::{HIDDEN, Secret};
use crate::sink::SINKS;
use crate::source::SOURCES;

/// The names of all secret options.
fn names() -> impl Iterator<Item = &'static str> {
    let sources = SOURCES.iter().flat_map(|source| source.options);
    let sinks = SINKS.iter().flat_map(|sink| sink.options);
    let options = sources.chain(sinks).chain(NOTIFIERS.iter().flat_map(|notifier| notifier.options));
    options.filter(|option| option.kind == OptionKind::Secret).map(|option| option.name)
}

/// What may be shown of a text that is these statements. Queries and rows hold no options, and may be long.
pub fn shown(text: &str, statements: &[Statement]) -> String {
    let has_options = |statement: &Statement| match statement {
        Statement::Ours { command, .. } => !command.inserts(),
        Statement::Sql(statement) => !matches!(**statement, sqlparser::ast::Statement::Query(_)),
    };
    if statements.iter().any(has_options) { without_secrets(text) } else { text.to_string() }
}

/// The text without secrets. References (`${ENV:…}`) stay: they are none.
pub fn without_secrets(text: &str) -> String {
    hide(text, &names().collect::<Vec<_>>())
}

fn hide(text: &str, names: &[&str]) -> String {
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location() else {
        // Where it is torn is not known, so neither is where a secret would be.
        return HIDDEN.to_string();
    };
    let lines = line_starts(text);
    let tokens: Vec<&TokenWithSpan> = tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect();
    let (mut shown, mut from) = (String::new(), 0);
    for (at, two) in tokens.windows(2).enumerate() {
        let [before, value] = two else { continue };
        let is_option =
            before.token == Token::Eq && names_before(&tokens[..at]).iter().any(|name| is_secret(name, names));
        if !is_option && !is_password(before, value) {
            continue;
        }
        let given = match &value.token {
            Token::SingleQuotedString(given) | Token::EscapedStringLiteral(given) => given.as_str(),
            _ => "",
        };
        if Secret::new(given).shown() != HIDDEN {
            continue;
        }
        let (start, end) = (byte_of(text, &lines, value.span.start), byte_of(text, &lines, value.span.end));
        shown += &text[from..start];
        shown += &format!("'{HIDDEN}'");
        from = end;
    }
    shown + &text[from..]
}

/// `PASSWORD '…'`, of a role.
fn is_password(word: &TokenWithSpan, value: &TokenWithSpan) -> bool {
    let named = matches!(&word.token, Token::Word(word) if word.value.eq_ignore_ascii_case("PASSWORD"));
    let text = matches!(
        value.token,
        Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_) | Token::DollarQuotedString(_)
    );
    named && text
}

fn is_secret(name: &str, names: &[&str]) -> bool {
    // The properties that are passed on to librdkafka have no rows of their own: what sounds like a credential is one.
    const SOUNDS: [&str; 6] = ["password", "passphrase", "secret", "private.key.pem", "oauthbearer.config", "jaas"];
    let lower = name.to_ascii_lowercase();
    names.iter().any(|secret| secret.eq_ignore_ascii_case(name))
        || (lower.starts_with("kafka.") && SOUNDS.iter().any(|word| lower.contains(word)))
}

/// The names that the last tokens may be: `a.b.c` is `c`, `b.c` and `a.b.c`.
fn names_before(tokens: &[&TokenWithSpan]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut rest = tokens;
    while let [before @ .., last] = rest
        && let Token::Word(word) = &last.token
    {
        names.push(names.last().map_or(word.value.clone(), |tail| format!("{}.{tail}", word.value)));
        let [before @ .., dot] = before else { break };
        if dot.token != Token::Period {
            break;
        }
        rest = before;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secret_options_are_hidden_and_nothing_else() {
        let hidden = |text: &str| hide(text, &["password", "token"]);
        let text =
            "CREATE SOURCE q INTO s WITH (user = 'password', password = 'é''x', -- token = 'a'\n\tTOKEN=abc, n = 1)";
        let expected =
            "CREATE SOURCE q INTO s WITH (user = 'password', password = '***', -- token = 'a'\n\tTOKEN='***', n = 1)";
        assert_eq!(hidden(text), expected);
        let reference =
            "WITH (password = '${ENV:PASSWORD}', token = '${OTHER:x}', password = $$p$$, \"token\" = E'\\\\x')";
        let expected = "WITH (password = '${ENV:PASSWORD}', token = '***', password = '***', \"token\" = '***')";
        assert_eq!(hidden(reference), expected);
        assert_eq!(
            hidden("SELECT password, token FROM t WHERE password <> 'x'"),
            "SELECT password, token FROM t WHERE password <> 'x'"
        );
        assert_eq!(
            hidden("CREATE ROLE a PASSWORD 'x' LOGIN; ALTER USER \"PASSWORD\" password $$y$$"),
            "CREATE ROLE a PASSWORD '***' LOGIN; ALTER USER \"PASSWORD\" password '***'"
        );
        assert_eq!(hidden("WITH (password = 'not closed"), "***");
        let dotted = |text: &str| hide(text, &["kafka.sasl.password"]);
        let text = "WITH (kafka.sasl.password = 'x', \"kafka.sasl.password\" = 'y', kafka.sasl.mechanism = 'PLAIN')";
        let expected =
            "WITH (kafka.sasl.password = '***', \"kafka.sasl.password\" = '***', kafka.sasl.mechanism = 'PLAIN')";
        assert_eq!(dotted(text), expected);
        assert_eq!(dotted("WITH (password = 'a', sasl.password = 'b')"), "WITH (password = 'a', sasl.password = 'b')");
    }
}
