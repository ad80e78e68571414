//! Properties of librdkafka, which users give as options with `kafka.` in front; those that hold secrets are options of their
//! own, so that they are shown nowhere.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use crate::error::{Error, Kind, Result};
use crate::options::{OptionKind, OptionSpec, Options, list};
use crate::reach;

/// What properties of librdkafka are called here: with this in front.
pub const PROPERTY: &str = "kafka.";

/// The options of every connector to Kafka that become properties.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec::optional("kafka.sasl.password", OptionKind::Secret, None, "librdkafka's sasl.password"),
    OptionSpec::optional("kafka.ssl.key.password", OptionKind::Secret, None, "librdkafka's ssl.key.password"),
    OptionSpec::optional("kafka.ssl.key.pem", OptionKind::Secret, None, "librdkafka's ssl.key.pem: the key itself"),
    OptionSpec::optional("kafka.ssl.keystore.password", OptionKind::Secret, None, "librdkafka's ssl.keystore.password"),
    OptionSpec::optional(
        "kafka.*",
        OptionKind::Text,
        None,
        "any other property of librdkafka: kafka.security.protocol = 'SASL_SSL', kafka.sasl.mechanism, kafka.sasl.username, kafka.ssl.ca.location",
    ),
];

/// A property that a connector sets itself, as that depends on it, and the option to use instead, if there is one.
pub type Ours = (&'static str, Option<&'static str>);

/// Would be shown by SHOW CREATE, as they are no options of their own.
const SECRET_PROPERTIES: &[&str] = &[
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
];

/// Name programs and libraries that would run in the server.
const FOREIGN_CODE: &[&str] = &["plugin.library.paths", "sasl.kerberos.kinit.cmd"];

/// The properties that were given, without those that are secret.
pub fn given(options: &Options) -> impl Iterator<Item = (&str, &str)> {
    options.beginning_with(PROPERTY).map(|(name, value)| (&name[PROPERTY.len()..], value))
}

/// `defaults`, and in front of them what was given, secrets among them. Fails when a secret is not where it is said to be.
pub fn config(options: &Options, defaults: &[(&str, &str)]) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    for (name, value) in defaults.iter().copied().chain(given(options)) {
        config.set(name, value);
    }
    for option in OPTIONS.iter().filter(|option| option.kind == OptionKind::Secret) {
        if let Some(secret) = options.secret(option.name)? {
            config.set(&option.name[PROPERTY.len()..], secret);
        }
    }
    Ok(config)
}

/// Whether librdkafka knows the properties and takes their values, and none of them is the connector's own. Not the
/// secrets: they may be missing now.
pub fn check(options: &Options, ours: &[Ours]) -> Result<()> {
    for (name, value) in given(options) {
        if let Some((_, instead)) = ours.iter().find(|(own, _)| *own == name) {
            let err = Error::new(Kind::InvalidParameter, format!("the property \"{name}\" is set by the connector"));
            return Err(match instead {
                Some(option) => err.with_hint(format!("Use the option \"{option}\".")),
                None => err.with_hint("Leave it out: it depends on it that nothing is lost or comes twice."),
            });
        }
        if SECRET_PROPERTIES.contains(&name) {
            let known = OPTIONS.iter().filter(|option| option.kind == OptionKind::Secret).map(|option| option.name);
            let message = format!("the property \"{name}\" may hold a secret and is not supported");
            return Err(Error::new(Kind::NotSupported, message)
                .with_detail(format!("Secrets that are hidden wherever they are shown: {}.", list(known))));
        }
        if FOREIGN_CODE.contains(&name) {
            let message =
                format!("the property \"{name}\" would run other programs in the server and is not supported");
            return Err(Error::new(Kind::NotSupported, message));
        }
        // What names files and machines: keys, servers that give out tokens.
        if ["location", "keytab", "path", "paths"].iter().any(|end| name.ends_with(end)) {
            value.split(';').try_for_each(reach::path)?;
        }
        if name.ends_with(".url") {
            reach::hosts(value)?;
        }
        let mut one = ClientConfig::new();
        one.set(name, value);
        if let Err(err) = one.create_native_config() {
            return Err(Error::new(Kind::InvalidParameter, format!("option \"{PROPERTY}{name}\": {}", why(&err)))
                .with_hint("The properties are listed in librdkafka's CONFIGURATION.md."));
        }
    }
    Ok(())
}

/// librdkafka's own words about a property.
fn why(err: &KafkaError) -> String {
    match err {
        KafkaError::ClientConfig(_, description, _, _) => description.clone(),
        other => other.to_string(),
    }
}

/// Why there is no client with these properties.
pub fn no_client(err: &KafkaError) -> Error {
    // The value may be a secret.
    let why = match err {
        KafkaError::ClientConfig(_, _, name, _) => format!("the property \"{name}\" is not as it should be"),
        KafkaError::ClientCreation(text) => text.clone(),
        other => other.to_string(),
    };
    Error::new(Kind::InvalidParameter, format!("could not make a Kafka client: {why}"))
        .with_hint("See the options kafka.….")
}
