// Goroutines whose stacks must grow: each calls a function with a large frame once.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"sync"
)

//go:noinline
func large(value int) int {
	var room [4000]byte
	room[value%len(room)] = 1
	use(&room)
	return int(room[(value+1)%len(room)]) + value
}

//go:noinline
func use(room *[4000]byte) { room[0]++ }

func main() {
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var count int
		fmt.Sscan(lines.Text(), &count)
		var all sync.WaitGroup
		for i := 1; i <= count; i++ {
			all.Add(1)
			go func() { defer all.Done(); large(i) }()
		}
		all.Wait()
		runtime.GC()
		fmt.Println("done", count)
	}
}
