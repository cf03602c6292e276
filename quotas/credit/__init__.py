"""What operators order about an organization's credit: free credit, goodwill, taking back, credit lines."""
