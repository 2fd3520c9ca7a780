// SPDX-License-Identifier: MIT
//
// Go's goroutines, all on one thread of the system (GOMAXPROCS is 1), through their scheduler.
//
//	switch   two goroutines hand an int over to each other by two unbuffered channels, one way
//	yield    runtime.Gosched() of two goroutines that do nothing else, one way
//	start    a goroutine of an empty function, until a WaitGroup says that it has ended
//	million  1,000,000 goroutines that wait for a channel: the time to make and start one, and its memory
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
)

func justSwitch(n int) {
	there, back := make(chan int), make(chan int)
	go func() {
		for i := range there {
			back <- i + 1
		}
	}()
	for i := 0; i < n; i++ {
		there <- i
		<-back
	}
	close(there)
}

func yield(n int) {
	left, ended := n, make(chan bool)
	loop := func() {
		for ; left > 0; left-- {
			runtime.Gosched()
		}
		ended <- true
	}
	go loop()
	go loop()
	<-ended
	<-ended
}

func start(n int) {
	var all sync.WaitGroup
	for i := 0; i < n; i++ {
		all.Add(1)
		go all.Done()
		all.Wait()
	}
}

// Resident memory and page tables of this process, in bytes.
func memoryBytes() float64 {
	status, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer status.Close()
	sum := 0.0
	for lines := bufio.NewScanner(status); lines.Scan(); {
		var kib float64
		for _, what := range []string{"VmRSS: %f", "VmPTE: %f"} {
			if n, _ := fmt.Sscanf(lines.Text(), what, &kib); n == 1 {
				sum += kib * 1024
			}
		}
	}
	return sum
}

func million() {
	const n = 1000000
	var begun sync.WaitGroup
	begun.Add(n)
	never := make(chan int)
	before, begin := memoryBytes(), time.Now()
	for i := 0; i < n; i++ {
		go func() {
			begun.Done()
			<-never
		}()
	}
	begun.Wait()
	runtime.Gosched() // the last one waits, too
	ns := float64(time.Since(begin).Nanoseconds()) / n
	fmt.Printf("%.3f %.0f\n", ns, (memoryBytes()-before)/n)
}

func main() {
	runtime.GOMAXPROCS(1)
	works := []struct {
		name   string
		run    func(int)
		n      int
		divide float64
	}{{"switch", justSwitch, 500000, 2}, {"yield", yield, 1000000, 1}, {"start", start, 200000, 1}}
	if len(os.Args) < 2 {
		for _, w := range works {
			fmt.Println(w.name)
		}
		fmt.Println("million")
		return
	}
	if os.Args[1] == "million" {
		million()
		return
	}
	for _, w := range works {
		if w.name == os.Args[1] {
			w.run(w.n/10 + 1)
			begin := time.Now()
			w.run(w.n)
			fmt.Printf("%.3f\n", float64(time.Since(begin).Nanoseconds())/float64(w.n)/w.divide)
			return
		}
	}
	os.Exit(3)
}
