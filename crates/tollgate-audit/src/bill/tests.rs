use super::*;

fn day(day: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 3, day).unwrap()
}

fn lines(text: &str) -> Vec<String> {
    let bill = read_bill(text).unwrap_or_else(|error| panic!("{error}"));
    let line = |((day, model), amounts): (&(NaiveDate, String), &Amounts)| {
        let text = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
        format!(
            "{day} {model:?} {} {} {} {}",
            text(amounts.requests.map(|one| one.to_string())),
            text(amounts.input_tokens.map(|one| one.to_string())),
            text(amounts.output_tokens.map(|one| one.to_string())),
            text(amounts.usd.map(|one| one.normalize().to_string())),
        )
    };
    bill.iter().map(line).collect()
}

#[test]
fn openais_usage_and_costs() {
    // 1772323200 is 2026-03-01T00:00:00Z; two pages one after the other.
    let usage = r#"{"object":"page","data":[{"object":"bucket","start_time":1772323200,"end_time":1772409600,"results":[
        {"object":"organization.usage.completions.result","input_tokens":1000,"output_tokens":500,"input_cached_tokens":800,
         "num_model_requests":5,"model":"gpt-4o-mini-2024-07-18","batch":false},
        {"object":"organization.usage.completions.result","input_tokens":10,"output_tokens":5,"num_model_requests":1,
         "model":"gpt-4o-mini-2024-07-18","batch":true}]}],"has_more":true}
        {"object":"page","data":[{"start_time":1772409600,"results":[]},
         {"start_time":1772496000,"results":[{"input_tokens":1,"output_tokens":0,"model":null}]}]}"#;
    assert_eq!(
        lines(usage),
        [
            "2026-03-01 \"gpt-4o-mini-2024-07-18\" 6 1010 505 -",
            "2026-03-03 \"\" - 1 0 -"
        ]
    );
    let costs = r#"{"data":[{"start_time":1772323200,"results":[
        {"object":"organization.costs.result","amount":{"value":0.06,"currency":"usd"},"line_item":"gpt-4o-mini, input"},
        {"object":"organization.costs.result","amount":{"value":1e-5,"currency":"usd"},"line_item":"gpt-4o-mini, output"},
        {"object":"organization.costs.result","amount":{"value":"2","currency":"USD"},"line_item":null}]}]}"#;
    assert_eq!(
        lines(costs),
        ["2026-03-01 \"\" - - - 2", "2026-03-01 \"gpt-4o-mini\" - - - 0.06001"]
    );
}

#[test]
fn anthropics_usage_and_cost() {
    let usage = r#"{"data":[{"starting_at":"2026-03-01T00:00:00Z","ending_at":"2026-03-02T00:00:00Z","results":[
        {"uncached_input_tokens":1500,"cache_creation":{"ephemeral_1h_input_tokens":1000,"ephemeral_5m_input_tokens":500},
         "cache_read_input_tokens":200,"output_tokens":700,"model":"claude-sim","server_tool_use":{"web_search_requests":10}}]}]}"#;
    assert_eq!(lines(usage), ["2026-03-01 \"claude-sim\" - 3200 700 -"]);
    let cost = r#"[{"data":[{"starting_at":"2026-03-01T23:30:00-01:00","results":[
        {"currency":"USD","amount":"12345.5","model":"claude-sim","description":"Usage"}]}]}]"#;
    assert_eq!(lines(cost), ["2026-03-02 \"claude-sim\" - - - 123.455"]);
}

#[test]
fn columns_by_name() {
    assert_eq!(
        lines(
            "\u{feff}Date,Model,Input tokens,Output tokens,Cost USD\n2026-03-01,m,\"1,000\",5,$0.25\n,total,1000,5,0.25\n"
        ),
        ["2026-03-01 \"m\" - 1000 5 0.25"]
    );
    let focus = "\"BilledCost\",\"BillingCurrency\",\"ChargePeriodStart\",\"ResourceId\"\n0.5,USD,2026-03-01 00:00:00+00,m\n\
                 0.25,USD,2026-03-01T00:00:00Z,m\n";
    assert_eq!(lines(focus), ["2026-03-01 \"m\" - - - 0.75"]);
    let anthropic = "usage_date_utc,model_version,usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,\
                     usage_input_tokens_cache_read,usage_output_tokens\n2026-03-01,claude-sim,10,20,30,4\n";
    assert_eq!(lines(anthropic), ["2026-03-01 \"claude-sim\" - 60 4 -"]);
}

#[test]
fn what_is_no_bill_is_told_with_its_place() {
    for (text, said) in [
        ("", "empty"),
        ("  \n", "empty"),
        ("{\"data\":[]}", "empty"),
        ("{\"data\":", "no JSON"),
        ("{\"data\":7}", "expected `data`"),
        ("[7]", "expected `data`"),
        ("{\"data\":[{\"results\":[]}]}", "data[0]: expected `start_time`"),
        (
            "{\"data\":[{\"start_time\":1e300,\"results\":[]}]}",
            "data[0]: expected `start_time`",
        ),
        (
            "{\"data\":[{\"start_time\":1,\"results\":[{}]}]}",
            "data[0].results[0]: expected an amount",
        ),
        (
            "{\"data\":[{\"start_time\":1,\"results\":[{\"input_tokens\":-1}]}]}",
            "input_tokens: expected a whole number",
        ),
        (
            "{\"data\":[{\"start_time\":1,\"results\":[{\"amount\":{\"value\":1,\"currency\":\"eur\"}}]}]}",
            "expected an amount in usd",
        ),
        (
            "{\"data\":[{\"start_time\":1,\"results\":[{\"amount\":{\"value\":[],\"currency\":\"usd\"}}]}]}",
            "amount: expected a number",
        ),
        ("model,cost\nm,1\n", "no column for the day"),
        ("day,model\n2026-03-01,m\n", "no column for the requests"),
        ("day,cost\n2026-03-01,1\n2026-03-02\n", "no CSV"),
        ("day,cost\n2026-03-01,1\nnever,1\n", "line 3: day: expected a day"),
        ("day,cost\n2026-03-01,much\n", "line 2: usd: expected a number"),
        (
            "day,cost\n2026-03-01,79000000000000000000000000000\n",
            "line 2: usd: expected a number",
        ),
        ("day,cost\n2026-03-01,1e999999999\n", "line 2: usd: expected a number"),
        (
            "day,input_tokens\n2026-03-01,1.5\n",
            "line 2: input: expected a whole number",
        ),
        (
            "day,input_tokens\n2026-03-01,-1\n",
            "line 2: input: expected a whole number",
        ),
        ("\u{0}", "no column for the day"),
    ] {
        let error = read_bill(text).unwrap_err().to_string();
        assert!(error.contains(said), "{text:?}: {error}");
    }
}

fn entry(asked: &str, served: &str, tokens: u64, estimated: u64, usd: &str) -> Entry {
    let amounts = |tokens: u64, usd: &str| Amounts {
        requests: Some(tokens / 10),
        input_tokens: Some(tokens),
        output_tokens: Some(0),
        usd: Some(usd.parse().unwrap()),
    };
    Entry {
        asked: asked.to_owned(),
        served: served.to_owned(),
        all: amounts(tokens, usd),
        estimated: amounts(estimated, "0"),
        unpriced: u64::from(usd == "0"),
    }
}

#[test]
fn days_and_models_are_held_against_each_other() {
    let bill = "day,model,input_tokens,usd\n\
                2026-03-01,gpt-a-0718,100,1.00\n2026-03-02,gpt-a-0718,50,0.504\n2026-03-02,gpt-b,70,0.70\n2026-03-02,gpt-c,5,0.05\n";
    let ledger = [
        // Asked by its short name, billed by its long one; ten tokens fell to the next day.
        (day(1), entry("gpt-a", "gpt-a-0718", 110, 0, "1.10")),
        (day(2), entry("gpt-a", "gpt-a-0718", 40, 0, "0.40")),
        // What was estimated may be off by as much.
        (day(2), entry("gpt-b", "gpt-b-served", 80, 20, "0")),
        (day(2), entry("gpt-d", "gpt-d", 9, 0, "0.09")),
    ];
    let tolerance = "0.005".parse().unwrap();
    let found = compare(&read_bill(bill).unwrap(), ledger, tolerance);
    let told: Vec<_> = found
        .iter()
        .map(|line| {
            let day = line.day.map_or("all".to_owned(), |day| day.to_string());
            let (model, measure, verdict) = (&line.model, line.measure.as_str(), line.verdict.as_str());
            format!("{day} {model} {measure} {} {} {verdict}", line.billed, line.ledger)
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    2026-03-01 gpt-a-0718 input_tokens 100 110 DIFFERS
    2026-03-01 gpt-a-0718 usd 1.00 1.10 DIFFERS
    2026-03-02 gpt-a-0718 input_tokens 50 40 DIFFERS
    2026-03-02 gpt-a-0718 usd 0.504 0.40 DIFFERS
    2026-03-02 gpt-b input_tokens 70 80 estimated
    2026-03-02 gpt-b usd 0.70 0 unpriced
    2026-03-02 gpt-c input_tokens 5 0 DIFFERS
    2026-03-02 gpt-c usd 0.05 0 DIFFERS
    2026-03-02 gpt-d input_tokens 0 9 DIFFERS
    2026-03-02 gpt-d usd 0 0.09 DIFFERS
    all gpt-a-0718 input_tokens 150 150 equal
    all gpt-a-0718 usd 1.504 1.50 equal
    all gpt-b input_tokens 70 80 estimated
    all gpt-b usd 0.70 0 unpriced
    all gpt-c input_tokens 5 0 DIFFERS
    all gpt-c usd 0.05 0 DIFFERS
    all gpt-d input_tokens 0 9 DIFFERS
    all gpt-d usd 0 0.09 DIFFERS
    ");
}
