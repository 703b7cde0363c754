//! The document as a page for people. It loads nothing and runs no script, and its policy allows nothing else.

use std::fmt::{Arguments, Write as _};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8885;--soft:#8882}\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem 1rem 6rem;overflow-wrap:break-word}\
code,pre,.method,.path{font-family:ui-monospace,monospace;font-size:.9em}\
code{background:var(--soft);border-radius:.2rem;padding:0 .2em}\
pre{background:var(--soft);border-radius:.3rem;padding:.7rem;white-space:pre-wrap;margin:.3rem 0}\
pre code,summary code{background:none;padding:0}\
details{border:1px solid var(--line);border-radius:.4rem;margin:.5rem 0;padding:.4rem .8rem}\
details details{border-style:dashed}\
summary{cursor:pointer}\
.method{display:inline-block;min-width:4.5em;font-weight:700}\
.path{font-weight:700;margin-right:.8em}\
table{border-collapse:collapse;width:100%;margin:.5rem 0}\
th,td{border-bottom:1px solid var(--line);padding:.3rem .6rem .3rem 0;text-align:left;vertical-align:top}\
td:last-child{overflow-wrap:anywhere}\
:target{outline:2px solid}\
h2{margin-top:2.5rem}h4{margin:1rem 0 .2rem}p{margin:.5rem 0}";

/// What `/docs` answers.
pub(super) struct Page {
    pub(super) html: Bytes,
    /// The `Content-Security-Policy`.
    pub(super) policy: String,
}

impl Page {
    pub(super) fn of(document: &Value) -> Self {
        let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let mut html = Html(String::new());
        html.document(document);
        Self { html: Bytes::from(html.0), policy }
    }
}

/// HTML that grows.
struct Html(String);

impl Html {
    fn add(&mut self, what: Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.0.write_fmt(what);
    }

    fn document(&mut self, document: &Value) {
        let info = &document["info"];
        let (title, version, about) =
            (text(&info["title"]), text(&info["version"]), text(&info["description"]));
        self.add(format_args!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <title>{title} {version}</title><style>{STYLE}</style></head><body>\n<h1>{title} {version}</h1>\n{}\
             <p>For programs: <a href=\"openapi.json\">openapi.json</a> (OpenAPI 3.1).</p>\n",
            paragraphs(&about)
        ));
        for tag in document["tags"].as_array().into_iter().flatten() {
            self.add(format_args!("<h2>{}</h2>\n", text(&tag["name"])));
            for (path, methods) in members(&document["paths"]) {
                for (method, operation) in members(methods) {
                    if operation.pointer("/tags/0") == Some(&tag["name"]) {
                        self.operation(&method.to_ascii_uppercase(), path, operation);
                    }
                }
            }
        }
        let components = &document["components"];
        self.add(format_args!("<h2>Problems</h2>\n<table><tr><th>type<th>status<th>when</tr>\n"));
        for (code, problem) in members(&components["examples"]) {
            let status = problem.pointer("/value/status").unwrap_or(&Value::Null);
            let when = marked(&text(&problem["description"]));
            self.add(format_args!(
                "<tr id=\"problem-{code}\"><td><code>/problems/{code}</code><td>{status}<td>{when}</tr>\n"
            ));
        }
        self.add(format_args!("</table>\n<h2>Types</h2>\n"));
        for (name, schema) in members(&components["schemas"]) {
            let (about, schema) = (marked(&text(&schema["description"])), shown(schema));
            self.add(format_args!(
                "<details id=\"type-{name}\"><summary><code>{name}</code> {about}</summary>{schema}</details>\n"
            ));
        }
        self.add(format_args!("</body></html>\n"));
    }

    fn operation(&mut self, method: &str, path: &str, operation: &Value) {
        let (id, summary) = (text(&operation["operationId"]), text(&operation["summary"]));
        let about = paragraphs(&text(&operation["description"]));
        self.add(format_args!(
            "<details id=\"{id}\"><summary><span class=\"method\">{method}</span> <span class=\"path\">{path}</span> \
             {summary}</summary>\n{about}"
        ));
        let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !parameters.is_empty() {
            self.add(format_args!("<h4>Parameters</h4><table>"));
            for one in parameters {
                let (name, place, about) =
                    (text(&one["name"]), text(&one["in"]), marked(&text(&one["description"])));
                let example = escaped(&one["example"].to_string());
                self.add(format_args!(
                    "<tr><td><code>{name}</code><td>{place}<td>{about} For example <code>{example}</code></tr>\n"
                ));
            }
            self.add(format_args!("</table>\n"));
        }
        let body = &operation["requestBody"];
        if body.is_object() {
            self.add(format_args!("<h4>Body</h4><p>{}</p>", marked(&text(&body["description"]))));
            self.content(&body["content"]);
        }
        self.add(format_args!("<h4>Answers</h4>\n"));
        for (status, answer) in members(&operation["responses"]) {
            let problems = answer.pointer("/content/application~1problem+json/examples");
            self.add(format_args!("<details><summary><b>{status}</b> "));
            if let Some(problems) = problems {
                for (code, _) in members(problems) {
                    self.add(format_args!("<a href=\"#problem-{code}\">{code}</a> "));
                }
            } else {
                self.add(format_args!("{}", marked(&text(&answer["description"]))));
            }
            self.add(format_args!("</summary>\n"));
            for (name, header) in members(&answer["headers"]) {
                let (about, example) = (marked(&text(&header["description"])), text(&header["example"]));
                self.add(format_args!("<p><code>{name}: {example}</code> {about}</p>\n"));
            }
            self.content(&answer["content"]);
            self.add(format_args!("</details>\n"));
        }
        self.add(format_args!("</details>\n"));
    }

    fn content(&mut self, content: &Value) {
        for (media, one) in members(content) {
            self.add(format_args!("<p><code>{}</code>", escaped(media)));
            let schema = &one["schema"];
            let of_events = schema.pointer("/properties/data/contentSchema").unwrap_or(&Value::Null);
            for reference in [schema, &schema["x-line"], of_events] {
                if let Some(name) = reference["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
                    self.add(format_args!(" <a href=\"#type-{name}\">{name}</a>"));
                }
            }
            self.add(format_args!("</p>\n"));
            if let Some(example) = one.get("example") {
                self.0 += &shown(example);
            }
        }
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// A text of the document, for HTML.
fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// JSON with indents, or text as it is.
fn shown(value: &Value) -> String {
    let shown = value.as_str().map_or_else(|| format!("{value:#}"), str::to_owned);
    format!("<pre><code>{}</code></pre>", escaped(&shown))
}

fn paragraphs(escaped: &str) -> String {
    escaped.split("\n\n").fold(String::new(), |html, paragraph| html + "<p>" + &marked(paragraph) + "</p>\n")
}

/// Text that was escaped, with the little of Markdown that the document has: code, and what is strong.
fn marked(escaped: &str) -> String {
    between(&between(escaped, "`", "code"), "**", "strong")
}

fn between(text: &str, mark: &str, tag: &str) -> String {
    let parts = text.split(mark).enumerate();
    parts
        .map(
            |(number, part)| if number % 2 == 1 { format!("<{tag}>{part}</{tag}>") } else { part.to_owned() },
        )
        .collect()
}
