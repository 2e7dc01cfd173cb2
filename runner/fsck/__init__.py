"""Is every file of a store what it must be, what rests on those that are not, and can they be got again?

    look → facts → judge → damages → mend → facts …

`facts` reads and hashes everything and concludes nothing; `judge` concludes from these values alone; `mend`
puts back what can be had again, each thing verified by its digest before it takes its place; `check` goes
through the three, and through them again while mending brings more to light.
"""
