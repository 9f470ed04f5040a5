// What a run came to, under the suite's own rule: a test counts only if those that it
// depends on pass as well. A listed contradiction is no failure of ours and is shown
// apart; a listed test that passes after all is one, so that the list stays true.

/** Scores by kind, and the names of what does not pass. */
export function score (suites, results, contradictions) {
  const tests = new Map(suites.flatMap(suite => suite.tests.map(test => [test.id, { ...test, suite: suite.name }])))
  const counted = [...tests.values()].filter(test => test.id in results)
  const outcome = id => outcomeOf(tests, results, id)
  const kinds = {}
  for (const kind of ['required', 'optimal', 'check']) {
    const all = counted.filter(test => (test.kind ?? 'required') === kind)
    const failing = all.filter(test => outcome(test.id) !== 'pass')
    kinds[kind] = { total: all.length, passed: all.length - failing.length, failing: failing.map(test => describe(test, outcome(test.id), results, contradictions)) }
  }
  const passing = Object.keys(contradictions).filter(id => outcome(id) === 'pass')
  return { kinds, passing }
}

function outcomeOf (tests, results, id) {
  const { depends_on: needs = [] } = tests.get(id) ?? {}
  if (needs.some(other => outcomeOf(tests, results, other) !== 'pass')) return 'dependency'
  if (results[id] === true) return 'pass'
  return results[id]?.[0] === 'Setup' ? 'setup' : 'fail'
}

function describe (test, outcome, results, contradictions) {
  const why = results[test.id] === true ? `depends on ${test.depends_on.join(', ')}` : results[test.id]?.[1]
  return { id: test.id, name: test.name, suite: test.suite, outcome, why, contradiction: contradictions[test.id] }
}
