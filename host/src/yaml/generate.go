// Writes samples of what sigs.k8s.io/yaml makes of JSON values: [[value, "yaml"], …].
//
// Run in a module that requires sigs.k8s.io/yaml v1.6.0: `go run generate.go SEED COUNT > go-yaml.json`.
package main

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"reflect"
	"regexp"
	"strconv"

	"sigs.k8s.io/yaml"
)

var words = []string{"", "a", "true", "True", "yes", "no", "on", "off", "y", "n", "null", "~", "Null", "0", "00", "01", "08", "0x1f", "0b1", "0o7", "-0b1",
	"1e3", "1.5", ".5", "5.", "-1", "+1", "1_000", "_1", "0.0.0.0", "1:30", "190:20:30", "1:60", "10:30:", "2001-01-01", "2001-1-1", "2001-02-30", "2001-12-14T21:59:43.10Z",
	"2001-12-14t21:59:43+01:00", "2001-12-14 21:59:43", "2001-12-14 21:59:43.1", "2001-13-14", "0s", "5m0s", "100Mi", "10%", "<5%", "unix:///run/x.sock", "a: b", "a:b", "a #b", "a#b", "#a",
	"- a", "-a", "-", "--", "---", "--- a", "...", "?", "? a", "?a", ":", ":a", ": a", "*", "&a", "!a", "|", ">", "'", "''", "it's", "\"", "a\"b", "%a", "@a", "`a", "[", "]", "{", "}", ",", "a,b", "[]", "{}",
	" a", "a ", " ", "  ", "a  b", "\t", "a\tb", "a\n", "a\nb", "a\nb\n", "a\n\n", "\na", "\n", "\n\n", " a\nb", "a \nb", "a\n b", "a\n  b\n", "a\r\nb", "\r", "é", "日本", "\u00a0", "\u0085", "\u2028", "a\u2028b", "\u2029\n", "\ufeff", "😀", "\x00", "\x07", "\x1b[0m", "\x7f", "\\", "a\\b",
	".inf", "-.inf", "+.INF", ".nan", ".NaN", "inf", "nan", ".", "..", ".e1", "1e400", "1e-400", "99999999999999999999", "9223372036854775808", "-9223372036854775809", "18446744073709551615", "18446744073709551616", "+18446744073709551615",
	"<<", "=", "kubelet.config.k8s.io/v1beta1", "10.96.0.10", "::1", "fd00::a", "1.2.3", "v1.37.2", "1.2e", "0x", "0xg", "0b2", "0_1", "+.5", "-.5e-3", "1.e5", "12e03", "1E+2", "node-role.kubernetes.io/control-plane:NoSchedule",
	"the quick brown fox jumps over the lazy dog and then the quick brown fox jumps over the lazy dog again and again",
	"the quick brown fox jumps over the lazy dog: and then the quick brown fox jumps over the lazy dog # again and again",
	"\tthe quick brown fox jumps over the lazy dog and then the quick brown fox jumps over the lazy dog  again and again ",
	"the quick brown fox's jumps over the lazy dog and then the quick brown fox jumps over the lazy dog  again # and  again "}

var alphabet = []string{"a", "b", "z", "0", "1", "9", ":", "-", ".", "#", " ", " ", "_", "'", "\"", "\n", "e", "x", "T", "+", ",", "{", "\\", "é"}

func text(r *rand.Rand) string {
	switch r.Intn(3) {
	case 0, 1:
		return words[r.Intn(len(words))]
	default:
		s := ""
		n := r.Intn(10)
		if r.Intn(6) == 0 {
			n = 80 + r.Intn(120)
		}
		for i := 0; i < n; i++ {
			s += alphabet[r.Intn(len(alphabet))]
		}
		return s
	}
}

func key(r *rand.Rand) string {
	for {
		k := text(r)
		// Numbers with something behind them make go-yaml's order of keys go in circles: 9, 10%, 1e.
		if len(k) < 100 && !regexp.MustCompile(`[0-9]{18}|(^|[^0-9])0[0-9]|[0-9][^0-9]`).MatchString(k) {
			return k
		}
	}
}

func value(r *rand.Rand, depth int) interface{} {
	n := 9
	if depth == 0 {
		n = 6
	}
	switch r.Intn(n) {
	case 0:
		return nil
	case 1:
		return r.Intn(2) == 0
	case 2:
		return json.Number(strconv.FormatInt(r.Int63()>>uint(r.Intn(63)), 10))
	case 3:
		f := []string{"0.5", "1.25", "1e-7", "123456789.5", "1e21", "1e20", "0.0001", "0.00001", "-2.5e-9", "1.7976931348623157e308", "100.5", "1234567.75"}
		return json.Number(f[r.Intn(len(f))])
	case 4, 5:
		return text(r)
	case 6:
		l := []interface{}{}
		for i := r.Intn(4); i > 0; i-- {
			l = append(l, value(r, depth-1))
		}
		return l
	default:
		m := map[string]interface{}{}
		for i := r.Intn(5); i > 0; i-- {
			m[key(r)] = value(r, depth-1)
		}
		return m
	}
}

func same(a, b []byte) bool {
	var x, y interface{}
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

func main() {
	seed, _ := strconv.ParseInt(os.Args[1], 10, 64)
	count, _ := strconv.Atoi(os.Args[2])
	r := rand.New(rand.NewSource(seed))
	var samples []interface{}
	add := func(v interface{}) {
		j, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		y, err := yaml.JSONToYAML(j)
		if err != nil {
			return // a value that go-yaml itself does not read
		}
		if again, err := yaml.YAMLToJSON(y); err != nil || !same(j, again) {
			return // go-yaml's reader takes a raw NEL in JSON for a line break
		}
		samples = append(samples, []interface{}{v, string(y)})
	}
	for _, w := range words {
		add(w)
		add(map[string]interface{}{w: w})
		add([]interface{}{w, []interface{}{w, map[string]interface{}{"a": w, "b": []interface{}{w}}}})
	}
	for i := 0; i < count; i++ {
		add(map[string]interface{}{key(r): value(r, 4), key(r): value(r, 3)})
	}
	out, err := json.Marshal(samples)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(out))
}
