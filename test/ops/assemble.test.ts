import { cases } from './cases/assemble.js'
import { checkCases } from './check.js'

checkCases(cases)
