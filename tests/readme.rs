//! The README: its tour is run as it stands there, its tables are those of the program.
//!
//! `LOGWEIR_WRITE_README=1` writes the tables into the README instead of comparing them.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use logweir::batch::{MALFORMED, METADATA};
use logweir::catalog::system::RELATIONS;
use logweir::database::QUOTAS;
use logweir::delivery::SINK_OPTIONS;
use logweir::delivery::dead::COLUMNS as DEAD;
use logweir::engine::{SOURCE_OPTIONS, STREAM_OPTIONS};
use logweir::format::FORMATS;
use logweir::frame::FRAMINGS;
use logweir::notify::{NOTIFIER_OPTIONS, NOTIFIERS};
use logweir::options::OptionSpec;
use logweir::server::http::{PROTOCOLS, ROWS_QUERY};
use logweir::sink::SINKS;
use logweir::sink::encode::ENCODINGS;
use logweir::source::SOURCES;
use logweir::sql::function::scalar::Scalar;
use logweir::sql::function::{FUNCTIONS, POSTGRES, SCALARS, windowed};
use logweir::sql::statement::STATEMENTS;

use crate::introspection;
use crate::server::{Client, LOGWEIR, Row, Server, signal, wait};
use crate::tidy;

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

fn text() -> String {
    std::fs::read_to_string(path()).expect("the repository has a README")
}

/// A fenced block: its language and its lines.
struct Block {
    language: String,
    text: String,
}

/// The fenced blocks of one section.
fn blocks(section: &str) -> Vec<Block> {
    let text = text();
    let start =
        text.find(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("the README has a section {section:?}"));
    let section = &text[start + 1..];
    let section = &section[..section.find("\n## ").unwrap_or(section.len())];
    let mut blocks = Vec::new();
    for (i, piece) in section.split("```").enumerate() {
        if i % 2 == 1 {
            let (language, text) = piece.split_once('\n').expect("a fence ends its line");
            blocks.push(Block { language: language.to_string(), text: text.to_string() });
        }
    }
    blocks
}

/// A server started by a line of the tour; it ends with the tour.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        signal(&self.0, libc::SIGTERM);
        wait(&mut self.0);
    }
}

#[test]
fn the_tour_works_as_it_is_written() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let binaries = Path::new(LOGWEIR).parent().expect("a binary is in a folder");
    let search = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap_or_default());
    let (mut server, mut client, mut last) = (None, None, Vec::new());
    for block in blocks("Five-minute tour") {
        match block.language.as_str() {
            "sh" if block.text.starts_with("logweir serve") => {
                let (running, address) = serve(&block.text, folder.path());
                server = Some(running);
                client = Some(Client::connect(&address));
            }
            "sh" => {
                let output = Command::new("sh")
                    .args(["-ec", &block.text])
                    .env("PATH", &search)
                    .current_dir(folder.path())
                    .output();
                let output = output.expect("every system has a shell");
                assert!(output.status.success(), "{}: {}", block.text, String::from_utf8_lossy(&output.stderr));
            }
            "sql" => last = client.as_ref().expect("the tour starts a server first").rows(&block.text),
            "text" => assert_eq!(rows(&last), table(&block.text), "the README shows another result:\n{}", block.text),
            other => panic!("a block of the tour is in {other:?}"),
        }
    }
    drop(client);
    drop(server);
}

/// Starts the server as the tour says, on free ports; gives its address.
fn serve(command: &str, folder: &Path) -> (Running, String) {
    let mut child = Command::new(LOGWEIR)
        .args(command.split_whitespace().skip(1))
        .args(["--pg", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .current_dir(folder)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let running = Running(child);
    let mut line = String::new();
    while !line.starts_with("ready: ") {
        line.clear();
        assert!(stderr.read_line(&mut line).expect("it is text") > 0, "the server ended before it was ready");
    }
    // What it says afterwards is not looked at, but must have somewhere to go.
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    let address = line.trim().trim_start_matches("ready: postgres ").split(',').next().expect("there is a first piece");
    (running, address.to_string())
}

fn rows(rows: &[Row]) -> Vec<Vec<String>> {
    rows.iter().map(|row| row.iter().map(|v| v.clone().unwrap_or_default()).collect()).collect()
}

/// The values of a table as psql prints it.
fn table(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().skip(2).filter(|line| !line.starts_with('('));
    lines.map(|line| line.split('|').map(|cell| cell.trim().to_string()).collect()).collect()
}

#[test]
fn the_first_commands_are_the_demo_and_the_tests() {
    let commands: Vec<Block> = blocks("Try it").into_iter().filter(|b| b.language == "sh").collect();
    assert_eq!(commands[0].text.trim(), "cargo run --release -- demo");
    assert_eq!(commands[1].text.trim(), "cargo test --release");
    let ci = std::fs::read_to_string(path().with_file_name(".ci/run")).expect("the repository has it");
    assert!(ci.trim_end().ends_with(commands[1].text.trim()), ".ci/run ends with the README's test command");
}

/// The recipes make streams; their files are empty here.
#[test]
fn the_recipes_for_formats_are_accepted() {
    let mut server = Server::start();
    let client = server.client();
    let file = server.log("any.log");
    std::fs::write(&file, "").expect("the folder is there");
    let mut made = 0;
    for block in blocks("Formats").iter().filter(|block| block.language == "sql") {
        for statement in block.text.split_inclusive(";\n").filter(|statement| statement.starts_with("CREATE TABLE")) {
            let (before, path) = statement.split_once("path = '").expect("it names its file");
            let (_, behind) = path.split_once('\'').expect("the name ends");
            client.run(&format!("{before}path = '{}'{behind}", file.display()));
            made += 1;
        }
    }
    assert_eq!(made, 10);
    assert_eq!(client.number("SELECT count(*) FROM logweir.streams"), made);
}

#[test]
fn the_tables_are_those_of_the_program() {
    let mut now = text();
    let (queries, alerts) = (ready_made("queries", &tidy::queries()), ready_made("queries/alerts", &tidy::alerts()));
    let tables =
        [("queries", queries), ("alerts", alerts), ("reference", reference()), ("introspection", introspection())];
    for (name, table) in tables {
        let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
        let start = now.find(&open).expect("the README has this mark") + open.len();
        let end = now.find(&close).expect("the README has this mark");
        now.replace_range(start..end, &table);
    }
    if std::env::var_os("LOGWEIR_WRITE_README").is_some() {
        std::fs::write(path(), &now).expect("the repository is writable");
    }
    if now != text() {
        let first = now.lines().zip(text().lines().chain([""])).find(|(a, b)| a != b).map(|(a, _)| a.to_string());
        panic!("the README's tables are old; LOGWEIR_WRITE_README=1 cargo test --release readme. First: {first:?}");
    }
}

/// The queries of tools that are compared with PostgreSQL.
fn introspection() -> String {
    let mut out = String::from("\n| file | queries | the same | known to differ |\n|---|---|---|---|\n");
    let (mut all, mut different) = (0, 0);
    for (tool, title, queries) in introspection::tools() {
        let differ = queries.iter().filter(|query| query.differs.is_some()).count();
        let counts = [queries.len().to_string(), (queries.len() - differ).to_string(), differ.to_string()];
        let link = format!("[`{tool}`](tests/introspection/{tool}.sql): {title}");
        line(&mut out, &[&link, &counts[0], &counts[1], &counts[2]]);
        (all, different) = (all + queries.len(), different + differ);
    }
    let counts = [all.to_string(), (all - different).to_string(), different.to_string()];
    line(&mut out, &["all", &counts[0], &counts[1], &counts[2]]);
    out
}

fn ready_made(folder: &str, paths: &[PathBuf]) -> String {
    let mut out = String::from("\n| file | the question it answers |\n|---|---|\n");
    for path in paths {
        let text = std::fs::read_to_string(path).expect("the file is readable");
        let name = path.file_stem().and_then(|n| n.to_str()).expect("names are ASCII");
        // The first sentence, which may go over several lines.
        let comment: Vec<&str> = text.lines().map_while(|l| l.strip_prefix("-- ")).collect();
        line(&mut out, &[&format!("[`{name}`]({folder}/{name}.sql)"), &comment.join(" ")]);
    }
    out + "\n"
}

fn reference() -> String {
    let mut out = String::from("\n### Statements\n\n| form | what it does |\n|---|---|\n");
    for statement in STATEMENTS {
        line(&mut out, &[&code(statement.syntax), statement.summary]);
    }
    out += "\n### In FROM\n\n| form | what it gives |\n|---|---|\n";
    for function in FUNCTIONS {
        line(&mut out, &[&code(function.syntax), function.summary]);
    }
    out += "\n### Functions for logs\n\n| form | what it gives | for example |\n|---|---|---|\n";
    let scalar_rows = |out: &mut String, families: &[&[Scalar]]| {
        for function in families.iter().flat_map(|family| family.iter()) {
            let sample = format!("{} → {}", code(function.sample.0), code(function.sample.1));
            line(out, &[&code(function.syntax), function.summary, &sample]);
        }
    };
    scalar_rows(&mut out, SCALARS);
    out += "\n### Functions of PostgreSQL\n\nBeside those of DataFusion, which have PostgreSQL's names.\n\n";
    out += "| form | what it gives | for example |\n|---|---|---|\n";
    scalar_rows(&mut out, POSTGRES);
    out += "\n### Window functions for what is unusual\n\n| form | what it gives | for example |\n|---|---|---|\n";
    for function in windowed() {
        let (call, result) = function.sample.shown();
        let sample = format!("{} → {}", code(&call), code(result));
        line(&mut out, &[&code(function.syntax), function.summary, &sample]);
    }
    out += "\n### Formats\n\n| format | what it reads | columns | options |\n|---|---|---|---|\n";
    for format in FORMATS {
        let columns: Vec<String> = format.columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
        line(&mut out, &[&format.name.to_uppercase(), format.summary, &columns.join(", "), &options(format.options)]);
    }
    out += "\n### Framings\n\n| `framing` | how records are told apart |\n|---|---|\n";
    for framing in FRAMINGS {
        line(&mut out, &[&code(framing.name), framing.summary]);
    }
    out += "\n### Connectors\n";
    for source in SOURCES {
        writeln!(
            out,
            "\n`connector = '{}'`: {}\n\n| option | default | what it says |\n|---|---|---|",
            source.name, source.summary
        )
        .expect("a String takes all");
        option_rows(&mut out, source.options);
    }
    out += "\nOptions of every source:\n\n| option | default | what it says |\n|---|---|---|\n";
    option_rows(&mut out, SOURCE_OPTIONS);
    out += "\nOptions of every stream:\n\n| option | default | what it says |\n|---|---|---|\n";
    option_rows(&mut out, STREAM_OPTIONS);
    out += "\n### Logs by HTTP\n\n| protocol | paths, also below `/v1/streams/NAME`, and all of them below `/db/NAME` | what it is |\n|---|---|---|\n";
    for protocol in PROTOCOLS {
        let paths: Vec<String> = protocol.paths.iter().map(|path| code(&format!("POST {path}"))).collect();
        line(&mut out, &[protocol.name, &paths.join(", "), protocol.summary]);
    }
    out += "\nA query of `rows` may say (beside the options of framings, as connectors have them):\n";
    out += "\n| option | default | what it says |\n|---|---|---|\n";
    option_rows(&mut out, ROWS_QUERY);
    out += "\n### Sinks\n";
    for sink in SINKS {
        let formats: Vec<String> = sink.formats.iter().map(|name| name.to_uppercase()).collect();
        let formats = if formats.is_empty() { String::new() } else { format!(" `FORMAT` {}.", formats.join(", ")) };
        writeln!(
            out,
            "\n`connector = '{}'`: {}. Each row arrives {}.{formats}\n\n| option | default | what it says |\n|---|---|---|",
            sink.name, sink.summary, sink.guarantee
        )
        .expect("a String takes all");
        option_rows(&mut out, sink.options);
    }
    out += "\nOptions of every sink:\n\n| option | default | what it says |\n|---|---|---|\n";
    option_rows(&mut out, SINK_OPTIONS);
    out += "\n| `FORMAT` of a sink | what it writes | options |\n|---|---|---|\n";
    for encoding in ENCODINGS {
        line(&mut out, &[&encoding.name.to_uppercase(), encoding.summary, &options(encoding.options)]);
    }
    out += "\n### Notifiers\n";
    for notifier in NOTIFIERS {
        writeln!(
            out,
            "\n`type = '{}'`: {}.\n\n| option | default | what it says |\n|---|---|---|",
            notifier.name, notifier.summary
        )
        .expect("a String takes all");
        option_rows(&mut out, notifier.options);
    }
    out += "\nOptions of every notifier:\n\n| option | default | what it says |\n|---|---|---|\n";
    option_rows(&mut out, NOTIFIER_OPTIONS);
    out += "\n### Quotas of a database\n\n| quota | default | what it says |\n|---|---|---|\n";
    for quota in QUOTAS {
        let later = if quota.at_once { "" } else { "; a change counts when the server starts again" };
        line(&mut out, &[&code(quota.name), quota.default, &format!("{}{later}", quota.summary)]);
    }
    out += "\n### Metadata columns\n\n| `INCLUDE` | what it adds |\n|---|---|\n";
    for (name, _, summary) in METADATA {
        line(&mut out, &[&code(name), summary]);
    }
    out += "\n### System relations\n\n| relation | what it shows | columns |\n|---|---|---|\n";
    for relation in RELATIONS {
        let columns: Vec<&str> = relation.columns.iter().map(|(name, _)| *name).collect();
        line(&mut out, &[&code(&format!("logweir.{}", relation.name)), relation.summary, &columns.join(", ")]);
    }
    let malformed: Vec<&str> = MALFORMED.fields().iter().map(|f| f.name().as_str()).collect();
    let summary = "the lines of a stream that do not fit its format, each with the reason";
    line(&mut out, &["`<stream>__malformed`", summary, &malformed.join(", ")]);
    let dead: Vec<&str> = DEAD.iter().map(|(name, _)| *name).collect();
    line(
        &mut out,
        &["`<sink>__dead`", "the rows that the other side of a sink has refused for good", &dead.join(", ")],
    );
    out + "\n"
}

fn option_rows(out: &mut String, specs: &[OptionSpec]) {
    for spec in specs {
        let default = match spec.default {
            Some(default) => code(default),
            None if spec.required => "required".to_string(),
            None => String::new(),
        };
        line(out, &[&code(spec.name), &default, spec.summary]);
    }
}

fn options(specs: &[OptionSpec]) -> String {
    let each = |spec: &OptionSpec| {
        let default = spec.default.map(|d| format!(" (default `{d}`)")).unwrap_or_default();
        format!("`{}`{default}: {}", spec.name, spec.summary)
    };
    specs.iter().map(each).collect::<Vec<_>>().join("; ")
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// A row of a table; a bar inside a cell is escaped.
fn line(out: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    writeln!(out, "| {} |", cells.join(" | ")).expect("a String takes all");
}
