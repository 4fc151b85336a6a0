import { cases } from './cases/signs.js'
import { checkCases } from './check.js'

checkCases(cases)
