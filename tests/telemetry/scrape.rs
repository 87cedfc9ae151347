//! A scrape: fetches the metrics as Prometheus does, and reads them strictly.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What an HTTP server answers to this, word by word.
pub(crate) async fn ask(address: SocketAddr, request_line: &str, accept: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request = format!("{request_line}\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_lowercase(), body.to_owned())
}

/// The metrics at this address.
pub(crate) async fn scrape(address: SocketAddr) -> Scrape {
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let (head, body) = ask(address, "GET /metrics HTTP/1.1", accept).await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    Scrape::parse(body)
}

/// A family of samples, as its comments describe it.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) unit: Option<String>,
    pub(crate) help: String,
}

/// One value.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) family: String,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// All that one scrape brought.
#[derive(Debug)]
pub(crate) struct Scrape {
    pub(crate) text: String,
    pub(crate) families: BTreeMap<String, Family>,
    pub(crate) samples: Vec<Sample>,
}

impl Scrape {
    /// Reads OpenMetrics text; panics where it breaks a rule of the format.
    fn parse(text: String) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("the end mark");
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut samples = Vec::new();
        let mut current = String::new();
        for line in body.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let mut word = || words.next().unwrap_or_else(|| panic!("{line}"));
                let (what, name, said) = (word(), word(), word());
                if current != name {
                    assert!(!families.contains_key(name), "{name} comes in two pieces");
                    name.clone_into(&mut current);
                }
                let family = families.entry(current.clone()).or_default();
                match what {
                    "HELP" => said.clone_into(&mut family.help),
                    "TYPE" => said.clone_into(&mut family.kind),
                    "UNIT" => family.unit = Some(said.to_owned()),
                    _ => panic!("{line}"),
                }
            } else {
                let (name, labels, value) = sample(line);
                let suffix = name
                    .strip_prefix(&*current)
                    .unwrap_or_else(|| panic!("{line}"));
                let suffixes: &[&str] = match &*families[&current].kind {
                    "counter" => &["_total"],
                    "gauge" => &[""],
                    "histogram" => &["_bucket", "_sum", "_count"],
                    kind => panic!("{kind}"),
                };
                assert!(suffixes.contains(&suffix), "{line}");
                assert_eq!(suffix == "_bucket", labels.contains_key("le"), "{line}");
                samples.push(Sample {
                    family: current.clone(),
                    name,
                    labels,
                    value,
                });
            }
        }
        Self {
            text,
            families,
            samples,
        }
    }

    /// The sum of the samples of this name with these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &Sample, (label, value): &(&str, &str)| {
            sample
                .labels
                .get(*label)
                .is_some_and(|found| found == value)
        };
        let matching =
            |sample: &&Sample| sample.name == name && labels.iter().all(|label| has(sample, label));
        self.samples
            .iter()
            .filter(matching)
            .map(|sample| sample.value)
            .sum()
    }
}

/// `name{label="value",…} value`, and nothing else.
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
    let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
    let Some((name, rest)) = series.split_once('{') else {
        assert!(is_name(series), "{line}");
        return (series.to_owned(), BTreeMap::new(), value);
    };
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    let inside = rest.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
    for pair in inside.split(',') {
        let (label, quoted) = pair.split_once('=').unwrap_or_else(|| panic!("{line}"));
        let unquoted = quoted
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        // No label here holds anything that would have to be escaped.
        let value = unquoted
            .filter(|value| !value.contains(['"', '\\', '\n']))
            .expect("quoted");
        assert!(is_name(label), "{line}");
        assert!(
            labels.insert(label.to_owned(), value.to_owned()).is_none(),
            "{line}"
        );
    }
    (name.to_owned(), labels, value)
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
