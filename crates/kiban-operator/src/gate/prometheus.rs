//! An instant query to a server that speaks Prometheus' HTTP API
//! (<https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries>).
//!
//! What is not plainly an answer is no data: an error, a page, a warning (a part of the data is missing), an empty vector, NaN,
//! a time that is not the present.

use super::{Reading, http};
use crate::context::Context;
use kiban_api::gate::PrometheusGate;
use kiban_core::gate::Comparison;
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// Samples that are taken: a gate asks for a figure, not for a dump.
const MOST_SAMPLES: usize = 1000;
/// Labels of a sample that are named.
const LABELS: usize = 4;

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Value,
}

#[derive(Deserialize)]
struct Sample {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

pub(super) async fn measure(context: &Context, gate: &PrometheusGate, max_age: Duration) -> Reading {
    let condition: Comparison = match gate.condition.parse() {
        Ok(condition) => condition,
        Err(error) => return Reading::no_data(format!("{error}")),
    };
    let url = format!("{}/api/v1/query", gate.url.trim_end_matches('/'));
    // An old sample is not the present: the server looks back no further than a measurement may be old. Servers that do not
    // know the parameter ignore it.
    let back = format!("{}ms", max_age.min(Duration::from_secs(300)).as_millis());
    let query = [("query", gate.query.as_str()), ("lookback_delta", back.as_str())];
    match http::get(context, &url, &query, gate.credentials.as_deref()).await {
        Ok((status, body)) => judge(
            status,
            &body,
            condition,
            context.clock.now().as_millisecond(),
            max_age,
        ),
        Err(why) => Reading::no_data(why.to_string()),
    }
}

/// What an answer says. `now_ms`: milliseconds since 1970.
fn judge(status: u16, body: &[u8], condition: Comparison, now_ms: i64, max_age: Duration) -> Reading {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
        return Reading::no_data(format!(
            "the server answers {status}, and what comes is no answer to a query"
        ));
    };
    if status != 200 || answer.status != "success" {
        return Reading::no_data(format!("the server answers {status}: {}", answer.error));
    }
    if let Some(warning) = answer.warnings.first() {
        return Reading::no_data(format!(
            "the server warns that its answer is not whole: {warning}"
        ));
    }
    let samples = match answer.data.map(samples) {
        Some(Ok(samples)) => samples,
        Some(Err(message)) => return Reading::no_data(message),
        None => return Reading::no_data("the answer has no data"),
    };
    if samples.is_empty() {
        return Reading::no_data("the answer is empty: no series matches the query");
    }
    for sample in &samples {
        let age = now_ms.abs_diff((sample.value.0 * 1000.0) as i64);
        if u128::from(age) > max_age.as_millis() {
            return Reading::no_data(format!(
                "the answer{} is of another time: the clocks differ",
                labels(sample)
            ));
        }
        let Ok(number) = sample.value.1.parse::<f64>() else {
            return Reading::no_data(format!("the value{} is no number", labels(sample)));
        };
        if number.is_nan() {
            return Reading::no_data(format!("the value{} is NaN", labels(sample)));
        }
        if !condition.holds(number) {
            return Reading::fails(format!("{number}{} is not {condition}", labels(sample)));
        }
    }
    match samples.as_slice() {
        [one] => Reading::holds(format!("{} is {condition}", one.value.1)),
        all => Reading::holds(format!("all {} values are {condition}", all.len())),
    }
}

fn samples(data: Data) -> Result<Vec<Sample>, String> {
    let unread = |error: serde_json::Error| format!("the answer cannot be read: {error}");
    let samples = match data.result_type.as_str() {
        "scalar" => vec![Sample {
            metric: BTreeMap::new(),
            value: serde_json::from_value(data.result).map_err(unread)?,
        }],
        "vector" => serde_json::from_value(data.result).map_err(unread)?,
        other => {
            return Err(format!(
                "the query gives a {other}: write one that gives a vector or a scalar"
            ));
        }
    };
    if samples.len() > MOST_SAMPLES {
        return Err(format!(
            "the query gives {} values, at most {MOST_SAMPLES} are taken",
            samples.len()
        ));
    }
    Ok(samples)
}

fn labels(sample: &Sample) -> String {
    let named = sample.metric.iter().take(LABELS);
    let named: Vec<String> = named.map(|(key, value)| format!("{key}={value:?}")).collect();
    if named.is_empty() {
        return String::new();
    }
    format!(" of {{{}}}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiban_core::gate::GateState;
    use serde_json::json;

    const NOW_MS: i64 = 1_795_000_000_000;

    fn state(status: u16, body: &str) -> GateState {
        let condition = "> 0.99".parse().unwrap();
        judge(
            status,
            body.as_bytes(),
            condition,
            NOW_MS,
            Duration::from_secs(60),
        )
        .state
    }

    fn vector(samples: Value) -> String {
        json!({"status": "success", "data": {"resultType": "vector", "result": samples}}).to_string()
    }

    fn sample(at: f64, value: &str) -> Value {
        json!({"metric": {"job": "hosting"}, "value": [at, value]})
    }

    const NOW: f64 = 1_795_000_000.0;

    #[test]
    fn every_sample_must_be_as_wanted() {
        assert_eq!(state(200, &vector(json!([sample(NOW, "1")]))), GateState::Holds);
        assert_eq!(
            state(200, &vector(json!([sample(NOW, "1"), sample(NOW, "0.5")]))),
            GateState::Fails
        );
        assert_eq!(
            state(200, &vector(json!([sample(NOW, "+Inf")]))),
            GateState::Holds
        );
        let scalar = json!({"status": "success", "data": {"resultType": "scalar", "result": [NOW, "0.995"]}});
        assert_eq!(state(200, &scalar.to_string()), GateState::Holds);
    }

    #[test]
    fn what_is_not_plainly_an_answer_is_no_data() {
        let matrix = json!({"status": "success", "data": {"resultType": "matrix", "result": []}});
        let partial = json!({"status": "success", "warnings": ["a store is down"],
            "data": {"resultType": "vector", "result": [sample(NOW, "1")]}});
        for (what, status, body) in [
            ("a page", 200, "<html>login</html>".to_owned()),
            ("nothing", 200, String::new()),
            (
                "an error",
                400,
                json!({"status": "error", "error": "parse error"}).to_string(),
            ),
            (
                "an error that says 200",
                200,
                json!({"status": "error", "error": "x"}).to_string(),
            ),
            ("a success that says 503", 503, vector(json!([sample(NOW, "1")]))),
            ("no data", 200, json!({"status": "success"}).to_string()),
            ("an empty vector", 200, vector(json!([]))),
            ("NaN", 200, vector(json!([sample(NOW, "NaN")]))),
            ("a word", 200, vector(json!([sample(NOW, "many")]))),
            ("an old sample", 200, vector(json!([sample(NOW - 61.0, "1")]))),
            (
                "a sample of the future",
                200,
                vector(json!([sample(NOW + 61.0, "1")])),
            ),
            ("a matrix", 200, matrix.to_string()),
            ("a part", 200, partial.to_string()),
            ("another shape", 200, vector(json!([{"value": "1"}]))),
        ] {
            assert_eq!(state(status, &body), GateState::NoData, "{what}");
        }
    }

    #[test]
    fn the_sample_that_is_not_as_wanted_is_named() {
        let body = vector(json!([sample(NOW, "0.5")]));
        let reading = judge(
            200,
            body.as_bytes(),
            "> 0.99".parse().unwrap(),
            NOW_MS,
            Duration::from_secs(60),
        );
        assert_eq!(reading.message, "0.5 of {job=\"hosting\"} is not > 0.99");
    }
}
