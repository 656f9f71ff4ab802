use proptest::prelude::*;
use serde_json::json;

use super::*;

fn task(program: Program, params: Vec<Param>) -> Task {
    Task { params, result_expires_ms: 0, ..Task::new("t", program) }
}

fn exec(argv: &[&str], params: Vec<Param>) -> Task {
    task(Program::Exec(argv.iter().map(|s| (*s).to_owned()).collect()), params)
}

fn param(name: &str, kind: ParamType) -> Param {
    Param { name: name.into(), kind, default: None, one_of: vec![], min: None, max: None, max_length: None }
}

fn kw(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

fn argv(task: &Task, args: &[Value], kwargs: Value) -> Vec<String> {
    bind(task, args, &kw(kwargs)).unwrap().argv(task)
}

fn faults(task: &Task, args: &[Value], kwargs: Value) -> Vec<String> {
    bind(task, args, &kw(kwargs)).unwrap_err()
}

#[test]
fn placeholders_are_filled_inside_their_element() {
    let t = exec(
        &["/bin/send", "--to", "{user_id}", "--template={template}", "{{x}}", "{X}"],
        vec![
            param("user_id", ParamType::Int),
            Param { default: Some(json!("welcome")), ..param("template", ParamType::String) },
        ],
    );
    let want = ["/bin/send", "--to", "7", "--template=a b; $(rm)", "{x}", "{X}"];
    assert_eq!(argv(&t, &[json!("7")], json!({"template": "a b; $(rm)"})), want);
    assert_eq!(argv(&t, &[], json!({"user_id": 7}))[3], "--template=welcome");
}

#[test]
fn all_faults_come_in_one_answer() {
    let t = exec(
        &["/bin/x", "{a}", "{b}", "{c}", "{d}", "{e}"],
        vec![
            param("a", ParamType::Int),
            param("b", ParamType::String),
            Param { min: Some(1.0), max: Some(9.0), ..param("c", ParamType::Float) },
            Param { one_of: vec![json!("x"), json!("y")], ..param("d", ParamType::String) },
            Param { max_length: Some(3), ..param("e", ParamType::String) },
        ],
    );
    let told = faults(&t, &[json!("5.5")], json!({"a": 1, "c": 10, "d": "z", "e": "abcd", "zz": 1}));
    let all = told.join("\n");
    for part in [
        "a: is given twice",
        "b: is missing (a string)",
        "c: must be at most 9, not 10",
        "d: must be one of \"x\", \"y\", not \"z\"",
        "e: must have at most 3 characters, not 4",
        "zz: is no parameter of this task (a, b, c, d, e)",
    ] {
        assert!(all.contains(part), "{part:?} is not in\n{all}");
    }
    assert_eq!(told.len(), 6);
}

#[test]
fn types_are_kept_and_strings_are_read_as_numbers() {
    let p = |kind| param("p", kind);
    assert_eq!(p(ParamType::Int).accept(&json!("-12")), Ok(json!(-12)));
    assert_eq!(p(ParamType::Float).accept(&json!("1e3")), Ok(json!(1000.0)));
    assert_eq!(p(ParamType::Bool).accept(&json!("true")), Ok(json!(true)));
    for (kind, bad) in [
        (ParamType::Int, json!(1.5)),
        (ParamType::Int, json!(18_446_744_073_709_551_615_u64)),
        (ParamType::Int, json!("5 ")),
        (ParamType::Int, json!(true)),
        (ParamType::Float, json!("inf")),
        (ParamType::Float, json!("nan")),
        (ParamType::Bool, json!(1)),
        (ParamType::Bool, json!("yes")),
        (ParamType::String, json!(5)),
        (ParamType::String, json!(null)),
        (ParamType::String, json!(["x"])),
        (ParamType::String, json!("a\0b")),
    ] {
        assert!(p(kind).accept(&bad).is_err(), "{kind:?} accepted {bad}");
    }
}

#[test]
fn positional_arguments_are_appended_behind_two_dashes() {
    let t = exec(&["/bin/x"], vec![]);
    assert_eq!(
        argv(&t, &[json!("-rf"), json!(5), json!(true)], json!({})),
        ["/bin/x", "--", "-rf", "5", "true"]
    );
    assert_eq!(argv(&t, &[], json!({})), ["/bin/x"]);
    let t = Task { dash_dash: false, ..t };
    assert_eq!(argv(&t, &[json!("a")], json!({})), ["/bin/x", "a"]);
    assert_eq!(faults(&t, &[json!("-rf"), json!(-5)], json!({})).len(), 2);
    let t = Task { allow_dash: true, ..t };
    assert_eq!(argv(&t, &[json!("-rf")], json!({})), ["/bin/x", "-rf"]);
}

#[test]
fn a_call_is_the_same_by_position_and_by_name() {
    let t = exec(&["/bin/x"], vec![param("a", ParamType::Int), param("b", ParamType::String)]);
    let want = ["/bin/x", "--", "1", "z"];
    assert_eq!(argv(&t, &[json!(1), json!("z")], json!({})), want);
    assert_eq!(argv(&t, &[json!(1)], json!({"b": "z"})), want);
    assert_eq!(argv(&t, &[], json!({"b": "z", "a": 1})), want);
    // Where stdin carries what was named, the command line holds only what was given by position.
    let t = Task { stdin: Stdin::Json, ..t };
    assert_eq!(argv(&t, &[json!(1)], json!({"b": "z"})), ["/bin/x", "--", "1"]);
}

#[test]
fn a_value_never_becomes_an_option() {
    let t = exec(&["/bin/x", "{a}{b}-z"], vec![param("a", ParamType::String), param("b", ParamType::String)]);
    assert_eq!(faults(&t, &[json!("-x"), json!("")], json!({})).len(), 1);
    assert_eq!(faults(&t, &[json!(""), json!("-x")], json!({})).len(), 1);
    assert_eq!(faults(&t, &[json!(""), json!("")], json!({})).len(), 1, "the empty values bare -z");
    assert_eq!(argv(&t, &[json!("y"), json!("-x")], json!({})), ["/bin/x", "y-x-z"]);
    // Where the author wrote the dash, a value behind it is fine.
    let t = exec(&["/bin/x", "--a={a}"], vec![param("a", ParamType::String)]);
    assert_eq!(argv(&t, &[json!("-x")], json!({})), ["/bin/x", "--a=-x"]);
}

#[test]
fn a_command_gets_operands_and_variables_never_text() {
    let t = task(Program::Command("echo \"$1\" $a".into()), vec![param("a", ParamType::String)]);
    let bound = bind(&t, &[json!("$(id); -x")], &Map::new()).unwrap();
    assert_eq!(bound.argv(&t), ["/bin/sh", "-c", "echo \"$1\" $a", "t", "$(id); -x"]);
    assert_eq!(bound.environment(&t), [("a".to_owned(), "$(id); -x".to_owned())]);
}

#[test]
fn arguments_without_a_way_to_the_program_are_refused() {
    let t = exec(&["/bin/x"], vec![]);
    assert_eq!(faults(&t, &[json!([1]), json!({}), json!(null)], json!({"k": 1})).len(), 4);
    let t = Task { stdin: Stdin::Json, ..t };
    let bound = bind(&t, &[json!([1])], &kw(json!({"k": {"deep": 1}}))).unwrap();
    assert_eq!(bound.argv(&t), ["/bin/x", "--", "[1]"]);
    assert_eq!(bound.kwargs, kw(json!({"k": {"deep": 1}})));
    let t = task(Program::Worker, vec![]);
    assert!(bind(&t, &[json!({})], &kw(json!({"k": 1}))).unwrap().argv(&t).is_empty());
}

#[test]
fn what_the_kernel_would_not_take_is_refused() {
    let t = exec(&["/bin/x"], vec![]);
    assert!(bind(&t, &[json!("x".repeat(MAX_ARG - 1))], &Map::new()).is_ok());
    assert_eq!(faults(&t, &[json!("x".repeat(MAX_ARG))], json!({})).len(), 1);
    let many = vec![json!(1); 200_000];
    assert!(faults(&t, &many, json!({})).join("").contains("at most 1572864 fit"));
    let names: Map<String, Value> = (0..1000).map(|i| (format!("k{i}"), json!(1))).collect();
    let told = bind(&t, &[], &names).unwrap_err();
    assert_eq!((told.len(), told.last().unwrap().as_str()), (33, "and 968 more"));
}

#[test]
fn templates_name_their_placeholders() {
    assert_eq!(check_template("--x={a}{b}{{c}}{D}"), Ok(vec!["a".to_owned(), "b".to_owned()]));
    assert!(check_template("a\0").is_err());
    assert!(check_template(&"x".repeat(MAX_ARG)).is_err());
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        ".{0,12}".prop_map(Value::from),
        "-{0,2}[a-z]{0,3}".prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
    ]
}

fn any_element() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z{}=-]{0,8}",
        Just("{a}".to_owned()),
        Just("{a}{b}".to_owned()),
        Just("x{b}".to_owned()),
        Just("{a}-q".to_owned())
    ]
}

proptest! {
    /// The shape of the command line is the author's: values neither add elements nor options.
    #[test]
    fn values_add_neither_elements_nor_options(
        elements in proptest::collection::vec(any_element(), 1..6),
        values in proptest::collection::vec(any_value(), 2),
        dash_dash in any::<bool>(),
    ) {
        let kinds = |v: &Value| match v {
            Value::String(_) => ParamType::String,
            Value::Bool(_) => ParamType::Bool,
            n if n.is_i64() => ParamType::Int,
            _ => ParamType::Float,
        };
        let params = vec![param("a", kinds(&values[0])), param("b", kinds(&values[1]))];
        let mut t = task(Program::Exec(elements.clone()), params);
        t.dash_dash = dash_dash;
        if let Ok(bound) = bind(&t, &values, &Map::new()) {
            let argv = bound.argv(&t);
            let filled = template::any_placeholder(&elements);
            let appended = if filled { 0 } else { 2 + usize::from(dash_dash) };
            prop_assert_eq!(argv.len(), elements.len() + appended);
            for (i, element) in argv.iter().enumerate() {
                let authors = elements.get(i).map_or(i == elements.len() && dash_dash, |e| e.starts_with('-'));
                let behind = dash_dash && i > elements.len();
                prop_assert!(!element.starts_with('-') || authors || behind, "{:?} of {:?}", element, elements);
            }
        }
    }

    /// Binding never panics and every answer is a bound call or at least one fault.
    #[test]
    fn anything_is_answered(args in proptest::collection::vec(any_value(), 0..5), name in "[a-z]{1,3}") {
        let t = exec(&["/bin/x", "{a}"], vec![param("a", ParamType::Int)]);
        let kwargs: Map<String, Value> = [(name, json!(1))].into_iter().collect();
        if let Err(faults) = bind(&t, &args, &kwargs) {
            prop_assert!(!faults.is_empty());
        }
    }
}
