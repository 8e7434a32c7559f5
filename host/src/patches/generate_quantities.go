//go:build ignore

// Writes quantities.in: what apimachinery makes of texts of quantities.
//
//	go run …/host/src/patches/generate_quantities.go > …/quantities.in, in a module like the one of generate.go
package main

import (
	"encoding/json"
	"fmt"
	"k8s.io/apimachinery/pkg/api/resource"
)

func main() {
	fmt.Println("[")
	for _, s := range []string{"0", "0m", "00", "1", "01", "+1", "-1", "1.0", "1.5", "1.500", "1.50", ".5", "0.5", "5.", "100m", "1000m", "2000m", "1500m", "0.1m", "1n", "0.1n", "1u", "1k", "1000", "1000000", "123456", "1M", "1500M", "1G", "1T", "1P", "1E", "12e3", "1e3", "1E3", "1e6", "1e4", "15e2", "1e-3", "1e-10", "1e0", "1e18", "1Ki", "+1Ki", "1024Ki", "1025Ki", "1000Ki", "8Ki", "4096Mi", "1.5Gi", "0.5Gi", "0.1Ki", "1.1Gi", "0.001Ki", "1024Mi", "2048", "1Ti", "1Pi", "1Ei", "7Ei", "-4096Mi", "-0.5", "0Ki", "", "a", "1x", "1 ", "1..2", "1.2.3", "Ki", "m", "1ki", "1K", "1e", "--1", "1m1", "500Mi", "512Mi", "250m", "1073741824", "10Gi", "1.25", "0.25", "0.000000001", "100000", "10000k"} {
		var q resource.Quantity
		b, _ := json.Marshal(s)
		if err := json.Unmarshal(b, &q); err != nil || s == "" {
			fmt.Printf("    (%q, None),\n", s)
			continue
		}
		out, _ := json.Marshal(q)
		fmt.Printf("    (%q, Some(%s)),\n", s, out)
	}
	fmt.Println("]")
}
