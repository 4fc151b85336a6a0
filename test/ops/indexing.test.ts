import { cases } from './cases/indexing.js'
import { checkCases } from './check.js'

checkCases(cases)
