//go:build ignore

// Writes pod-fields.txt: the fields of core/v1 Pod and of all types below it, by reflection over their struct tags.
//
//	cd $(mktemp -d) && go mod init x && go get k8s.io/api@v0.37.2 && go run …/host/src/patches/generate.go > …/pod-fields.txt
package main

import (
	"fmt"
	"reflect"
	"sort"
	"strings"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var (
	seen    = map[reflect.Type]bool{}
	lines   = map[string][]string{}
	special = map[reflect.Type]string{
		reflect.TypeOf(resource.Quantity{}): "quantity",
		reflect.TypeOf(intstr.IntOrString{}): "intOrString",
		reflect.TypeOf(meta.Time{}):         "time",
		reflect.TypeOf(meta.MicroTime{}):    "time",
		reflect.TypeOf(meta.FieldsV1{}):     "raw",
	}
)

func name(t reflect.Type) string {
	if s, ok := special[t]; ok {
		return s
	}
	switch t.Kind() {
	case reflect.Pointer:
		return name(t.Elem())
	case reflect.Struct:
		walk(t)
		return t.Name()
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "bool"
	case reflect.Int32, reflect.Int64:
		return t.Kind().String()
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "bytes"
		}
		return "[]" + name(t.Elem())
	case reflect.Map:
		return "map:" + name(t.Elem())
	}
	panic(t.String())
}

// A field of an embedded struct is a field of the struct around it.
func fields(t reflect.Type, into string) {
	for i := 0; i < t.NumField(); i++ {
		f := t.Field(i)
		tag := strings.Split(f.Tag.Get("json"), ",")
		if tag[0] == "-" {
			continue
		}
		if f.Anonymous && tag[0] == "" {
			fields(f.Type, into)
			continue
		}
		attributes := []string{}
		for _, option := range tag[1:] {
			switch option {
			case "omitempty", "omitzero":
				attributes = append(attributes, option)
			}
		}
		if f.Type.Kind() == reflect.Pointer {
			attributes = append(attributes, "pointer")
		}
		if s := f.Tag.Get("patchStrategy"); s != "" {
			attributes = append(attributes, "strategy="+s)
		}
		if s := f.Tag.Get("patchMergeKey"); s != "" {
			attributes = append(attributes, "key="+s)
		}
		line := fmt.Sprintf("%s %s %s", tag[0], name(f.Type), strings.Join(attributes, " "))
		lines[into] = append(lines[into], strings.TrimSpace(line))
	}
}

func walk(t reflect.Type) {
	if seen[t] {
		return
	}
	seen[t] = true
	lines[t.Name()] = nil
	fields(t, t.Name())
}

func main() {
	walk(reflect.TypeOf(core.Pod{}))
	names := []string{}
	for n := range lines {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		fmt.Println(n)
		for _, l := range lines[n] {
			fmt.Println("  " + l)
		}
	}
}
