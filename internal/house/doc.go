// Package house holds the rules of the house; they are its tests.
package house
